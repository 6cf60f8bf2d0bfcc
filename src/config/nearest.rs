//! The nearest valid word to a mistyped one. Pure; it never decides whether a word is valid.

/// The candidate that `word` was most likely meant to be, if one is near enough to be worth saying:
/// one slip in three letters.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The Damerau-Levenshtein distance (optimal string alignment), blind to case: how many letters must be
/// inserted, removed, replaced or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut two_up = vec![0; b.len() + 1];
    let mut up: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = up[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(up[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(two_up[j - 2] + 1);
            }
        }
        two_up = std::mem::replace(&mut up, row);
    }
    up[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_kind_of_slip_once() {
        for (a, b, expected) in [
            ("trial", "trial", 0),
            ("trail", "trial", 1),
            ("tial", "trial", 1),
            ("triial", "trial", 1),
            ("Trial", "trial", 0),
            ("trxal", "trial", 1),
            ("", "abc", 3),
            ("abc", "", 3),
            ("cooldwon", "cooldown", 1),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn suggests_only_what_is_near() {
        let keys = ["trial", "watch", "watch_slow", "verify", "verify_timeout"];
        assert_eq!(nearest("trail", keys), Some("trial"));
        assert_eq!(nearest("verify_timeuot", keys), Some("verify_timeout"));
        assert_eq!(nearest("watch-slow", keys), Some("watch_slow"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("", keys), None);
    }
}
