//! The demo's images: Backstop's own static binary and nothing else, as a root file system made in memory, so that
//! neither a registry nor a base image is needed.

use anyhow::Context;

use crate::cli::failure::{Code, Failure};

/// Entries of a tar file are padded to this.
const BLOCK: usize = 512;
/// The program header of a binary that needs a loader, and so libraries that an empty image does not have.
const PT_INTERP: u32 = 3;

/// A root file system that holds this very program as `/backstop`.
///
/// # Errors
/// It cannot be read, or is not static and could not run in an empty image.
pub(super) fn root_file_system() -> anyhow::Result<Vec<u8>> {
    // Not the path that was typed: the file may have been replaced by an upgrade.
    let binary = std::fs::read("/proc/self/exe").context("this program's own file cannot be read")?;
    if needs_loader(&binary).context("this program's own file is no ELF file")? {
        let what = "this binary is linked dynamically, so it cannot run in the empty images that the demo makes of it";
        return Err(Failure::new(Code::Failure, what)
            .hint(
                "`deploy/demo` builds a static one; by hand: RUSTFLAGS='-C target-feature=+crt-static' \
                 cargo build --release --target \"$(rustc -vV | sed -n 's/^host: //p')\"",
            )
            .into());
    }
    Ok(tar("backstop", &binary))
}

/// Whether an ELF file names a loader; none if it is no ELF file. Numbers are read in this machine's byte order: it is
/// this machine that runs the file.
fn needs_loader(elf: &[u8]) -> Option<bool> {
    let bytes = |at: usize, len: usize| elf.get(at..at.checked_add(len)?);
    let half = |at| Some(usize::from(u16::from_ne_bytes(bytes(at, 2)?.try_into().ok()?)));
    let word = |at| Some(u32::from_ne_bytes(bytes(at, 4)?.try_into().ok()?));
    if bytes(0, 4)? != b"\x7fELF" {
        return None;
    }
    let wide = *elf.get(4)? == 2;
    let (table, size, count) = if wide {
        let table = usize::try_from(u64::from_ne_bytes(bytes(0x20, 8)?.try_into().ok()?)).ok()?;
        (table, half(0x36)?, half(0x38)?)
    } else {
        (usize::try_from(word(0x1c)?).ok()?, half(0x2a)?, half(0x2c)?)
    };
    for index in 0..count {
        if word(table.checked_add(index.checked_mul(size)?)?)? == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

/// A tar file with one executable in it, owned by root.
fn tar(name: &str, contents: &[u8]) -> Vec<u8> {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| {
        for (to, from) in header.iter_mut().skip(at).zip(text.bytes()) {
            *to = from;
        }
    };
    put(0, name);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", contents.len()));
    put(136, "00000000000\0");
    // The checksum is taken with spaces in its place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    for (to, from) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
        *to = from;
    }
    let padded = contents.len().next_multiple_of(BLOCK);
    let mut tar = Vec::with_capacity(3 * BLOCK + padded);
    tar.extend_from_slice(&header);
    tar.extend_from_slice(contents);
    // Two empty blocks end it.
    tar.resize(3 * BLOCK + padded, 0);
    tar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(kinds: &[u32]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[0x20..0x28].copy_from_slice(&64u64.to_ne_bytes());
        file[0x36..0x38].copy_from_slice(&56u16.to_ne_bytes());
        file[0x38..0x3a].copy_from_slice(&u16::try_from(kinds.len()).unwrap().to_ne_bytes());
        for kind in kinds {
            file.extend(kind.to_ne_bytes());
            file.extend([0; 52]);
        }
        file
    }

    #[test]
    fn a_binary_that_names_a_loader_is_told_from_one_that_does_not() {
        assert_eq!(needs_loader(&elf(&[6, PT_INTERP, 1])), Some(true));
        assert_eq!(needs_loader(&elf(&[1, 2])), Some(false));
        assert_eq!(needs_loader(b"#!/bin/sh\n"), None);
        let cut = elf(&[1, PT_INTERP]);
        assert_eq!(needs_loader(&cut[..100]), None, "what is cut off is not guessed");
    }

    /// Read back by the tool that everybody has.
    #[test]
    fn tar_reads_it() {
        use std::io::Write;
        let mut reader = std::process::Command::new("tar")
            .args(["-tvf", "-", "--numeric-owner"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        reader.stdin.take().unwrap().write_all(&tar("backstop", &[7; 700])).unwrap();
        let listed = reader.wait_with_output().unwrap();
        assert!(listed.status.success());
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.starts_with("-rwxr-xr-x 0/0") && listed.contains(" 700 "), "{listed}");
        assert!(listed.trim_end().ends_with("backstop") && listed.lines().count() == 1, "{listed}");
    }
}
