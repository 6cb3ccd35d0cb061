//! The `.properties` format, by the rules of `java.util.Properties`.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct PropertiesError {
    pub line: usize,
    pub problem: &'static str,
}

/// Reads names and values; a later line wins over an earlier one of the same name.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, PropertiesError> {
    let mut properties = BTreeMap::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, first)) = lines.next() {
        let mut logical = first.trim_start_matches(is_blank).to_owned();
        // A comment is never continued, whatever it ends in.
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        while continues(&logical) {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical.push_str(next.trim_start_matches(is_blank));
        }
        let error = |problem| PropertiesError { line: index + 1, problem };
        let mut characters = logical.chars().peekable();
        let name = unescape(&mut characters, true).map_err(error)?;
        skip_separator(&mut characters);
        let value = unescape(&mut characters, false).map_err(error)?;
        properties.insert(name, value);
    }
    Ok(properties)
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

/// Whether the line ends in an odd number of backslashes: an even number is escaped backslashes.
fn continues(line: &str) -> bool {
    line.chars().rev().take_while(|character| *character == '\\').count() % 2 == 1
}

/// Blanks around at most one `=` or `:`.
fn skip_separator(characters: &mut Peekable<Chars<'_>>) {
    let mut separated = false;
    while let Some(character) = characters.peek() {
        match character {
            '=' | ':' if !separated => separated = true,
            blank if is_blank(*blank) => {}
            _ => break,
        }
        characters.next();
    }
}

/// Reads up to the separator if this is a name, or to the end.
fn unescape(characters: &mut Peekable<Chars<'_>>, is_name: bool) -> Result<String, &'static str> {
    let mut text = String::new();
    while let Some(&character) = characters.peek() {
        if is_name && (matches!(character, '=' | ':') || is_blank(character)) {
            break;
        }
        characters.next();
        if character != '\\' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('t') => text.push('\t'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('f') => text.push('\u{c}'),
            Some('u') => text.push(unicode(characters)?),
            Some(other) => text.push(other),
            None => {}
        }
    }
    Ok(text)
}

/// The four digits after `\u`, and those of a second `\u` where the first is half of a surrogate pair.
fn unicode(characters: &mut Peekable<Chars<'_>>) -> Result<char, &'static str> {
    let mut unit = || {
        (0..4).try_fold(0u16, |unit, _| {
            let digit = characters.next().and_then(|digit| digit.to_digit(16)).ok_or("\\u needs four hex digits")?;
            Ok::<u16, &'static str>(unit << 4 | digit as u16)
        })
    };
    let first = unit()?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(u32::from(first)).ok_or("\\u gives half of a surrogate pair");
    }
    if characters.next() != Some('\\') || characters.next() != Some('u') {
        return Err("\\u gives half of a surrogate pair");
    }
    let mut second = 0u16;
    for _ in 0..4 {
        let digit = characters.next().and_then(|digit| digit.to_digit(16)).ok_or("\\u needs four hex digits")?;
        second = second << 4 | digit as u16;
    }
    char::decode_utf16([first, second]).next().and_then(Result::ok).ok_or("\\u gives half of a surrogate pair")
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::parse;

    fn check(text: &str, expected: Expect) {
        let read = match parse(text) {
            Ok(properties) => properties.iter().map(|(name, value)| format!("{name:?} {value:?}\n")).collect(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&read);
    }

    #[test]
    fn a_name_ends_at_equals_colon_or_blank() {
        check(
            "a=1\nb: 2\nc 3\n  d  =  4  \ne\nf==5\ng = :6",
            expect![[r#"
                "a" "1"
                "b" "2"
                "c" "3"
                "d" "4  "
                "e" ""
                "f" "=5"
                "g" ":6"
            "#]],
        );
    }

    #[test]
    fn comments_and_empty_lines_are_skipped_and_never_continued() {
        check(
            "# one \\\na=1\n\n   ! two\n\t# three\nb=#not",
            expect![[r##"
            "a" "1"
            "b" "#not"
        "##]],
        );
    }

    #[test]
    fn an_odd_number_of_backslashes_continues_a_line() {
        check(
            "list=a,\\\n     b,\\\n\tc\npath=C:\\\\\nnext=1\nlast=x\\",
            expect![[r#"
            "last" "x"
            "list" "a,b,c"
            "next" "1"
            "path" "C:\\"
        "#]],
        );
    }

    #[test]
    fn escapes_are_javas() {
        check(
            r"a\=b\:c\ d=\t\n\u00e9\q\ud83d\ude00",
            expect![[r#"
            "a=b:c d" "\t\néq😀"
        "#]],
        );
    }

    #[test]
    fn a_bad_escape_tells_its_line() {
        check("a=1\nb=\\u12", expect!["line 2: \\u needs four hex digits"]);
        check("b=\\ud83dx", expect!["line 1: \\u gives half of a surrogate pair"]);
    }

    #[test]
    fn the_last_value_of_a_name_wins_and_windows_line_ends_are_dropped() {
        check(
            "a=1\r\na=2\r\n",
            expect![[r#"
            "a" "2"
        "#]],
        );
    }
}
