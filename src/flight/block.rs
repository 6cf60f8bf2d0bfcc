//! How a segment is made of blocks: length, checksum, compressed entries.

use super::Entry;

/// What a segment begins with: a line for whoever looks at it with `head -1`.
pub(super) const MAGIC: &[u8] = b"backstop flight record 1; read it with `backstop replay`\n";
/// Length and checksum of a block, four bytes each, little-endian.
pub(super) const HEAD: usize = 8;
/// Compressed by LZ4, nothing gets smaller than this: what claims more is damaged.
const RATIO_MAX: usize = 256;

/// Adds an entry to a block that is being made.
pub(super) fn add(block: &mut Vec<u8>, entry: &Entry) -> Result<(), rmp_serde::encode::Error> {
    rmp_serde::encode::write_named(block, entry)
}

/// Closes a block: what is written to the disk.
pub(super) fn seal(block: &[u8]) -> Vec<u8> {
    let packed = lz4_flex::compress_prepend_size(block);
    let length = u32::try_from(packed.len()).unwrap_or(u32::MAX);
    let mut sealed = Vec::with_capacity(HEAD + packed.len());
    sealed.extend_from_slice(&length.to_le_bytes());
    sealed.extend_from_slice(&crc32fast::hash(&packed).to_le_bytes());
    sealed.extend_from_slice(&packed);
    sealed
}

/// How long the block is that has this head, and its checksum.
pub(super) fn head(head: [u8; HEAD]) -> (usize, u32) {
    let [a, b, c, d, e, f, g, h] = head;
    let length = u32::from_le_bytes([a, b, c, d]);
    (usize::try_from(length).unwrap_or(usize::MAX), u32::from_le_bytes([e, f, g, h]))
}

/// Opens a block; none if it is damaged.
pub(super) fn open(packed: &[u8], checksum: u32) -> Option<Vec<u8>> {
    if crc32fast::hash(packed) != checksum {
        return None;
    }
    let (size, rest) = lz4_flex::block::uncompressed_size(packed).ok()?;
    if size > rest.len().saturating_mul(RATIO_MAX) {
        return None;
    }
    lz4_flex::decompress(rest, size).ok()
}
