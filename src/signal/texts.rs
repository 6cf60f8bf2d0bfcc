//! Texts of others, made harmless: on one line, of bounded length.

/// A text on one line, without characters that do something to a terminal or hide in it.
pub fn one_line(given: &str) -> String {
    let line: String = given
        .chars()
        .filter(|c| !is_invisible(*c))
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c })
        .collect();
    line.trim().to_owned()
}

/// The beginning of a text, at most `chars_max` characters of it, with `…` where it was cut off.
pub fn shortened(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some(_) => text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

/// Characters that take no room and turn the direction of writing round, or make equal texts differ. The joiners of
/// emoji and of some scripts (U+200C, U+200D) carry meaning and stay.
const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_in_a_text_is_taken_out_and_what_means_something_stays() {
        assert_eq!(one_line("a\u{202e}b\u{200b}c\u{2028}d\u{feff}"), "abc d");
        assert_eq!(one_line("👩\u{200d}🚒 kaputt"), "👩\u{200d}🚒 kaputt");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
        assert_eq!(shortened("", 3), "");
    }
}
