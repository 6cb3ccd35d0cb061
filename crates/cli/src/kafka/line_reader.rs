//! From lines of text to records: Kafka's `LineMessageReader` and its properties.

use bytes::Bytes;
use vltava_client::ProducerRecord;
use vltava_protocol::batch::RecordHeader;

/// What a line consists of, and what separates the parts.
#[derive(Clone, Debug)]
pub struct LineReader {
    topic: String,
    parse_key: bool,
    key_separator: String,
    parse_headers: bool,
    headers_delimiter: String,
    headers_separator: String,
    headers_key_separator: String,
    null_marker: Option<String>,
    ignore_error: bool,
}

impl LineReader {
    /// From `name=value` pairs; later ones win, and unknown names are passed over, as Kafka does.
    pub fn new(topic: &str, properties: &[(String, String)]) -> Result<Self, String> {
        let given =
            |name: &str| properties.iter().rev().find(|(given, _)| given == name).map(|(_, value)| unescape(value));
        let is_set = |name: &str| given(name).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
        let or = |name: &str, default: &str| given(name).unwrap_or_else(|| default.to_owned());
        let reader = Self {
            topic: given("topic").unwrap_or_else(|| topic.to_owned()),
            parse_key: is_set("parse.key"),
            key_separator: or("key.separator", "\t"),
            parse_headers: is_set("parse.headers"),
            headers_delimiter: or("headers.delimiter", "\t"),
            headers_separator: or("headers.separator", ","),
            headers_key_separator: or("headers.key.separator", ":"),
            null_marker: given("null.marker"),
            ignore_error: is_set("ignore.error"),
        };
        reader.check()?;
        Ok(reader)
    }

    fn check(&self) -> Result<(), String> {
        let separators = [
            ("headers.delimiter", &self.headers_delimiter),
            ("headers.separator", &self.headers_separator),
            ("headers.key.separator", &self.headers_key_separator),
        ];
        for (index, (name, value)) in separators.iter().enumerate() {
            if let Some((other, _)) = separators[index + 1..].iter().find(|(_, other)| other == value) {
                return Err(format!("{name} and {other} may not be equal"));
            }
        }
        let Some(marker) = &self.null_marker else { return Ok(()) };
        match [("key.separator", &self.key_separator)].iter().chain(&separators).find(|(_, value)| *value == marker) {
            Some((name, _)) => Err(format!("null.marker and {name} may not be equal")),
            None => Ok(()),
        }
    }

    /// Reads one line, which has no line end. Lines are counted from 1.
    pub fn read(&self, line: &[u8], number: u64) -> Result<ProducerRecord, String> {
        let mut rest = line;
        let headers = match self.parse_headers {
            true => self.take(&mut rest, line, &self.headers_delimiter, "headers delimiter", number)?,
            false => None,
        };
        let key = match self.parse_key {
            true => self.take(&mut rest, line, &self.key_separator, "key separator", number)?,
            false => None,
        };
        let headers = match headers.filter(|headers| !self.is_null(headers)) {
            Some(headers) => self.headers(headers, number)?,
            None => vec![],
        };
        Ok(ProducerRecord {
            topic: self.topic.clone(),
            key: key.and_then(|key| self.field(key)),
            value: self.field(rest),
            headers,
            ..ProducerRecord::default()
        })
    }

    /// The part before a separator; the rest begins after it. Without a separator everything is the rest, if errors are
    /// ignored.
    fn take<'a>(
        &self,
        rest: &mut &'a [u8],
        line: &[u8],
        separator: &str,
        name: &str,
        number: u64,
    ) -> Result<Option<&'a [u8]>, String> {
        match split_once(rest, separator.as_bytes()) {
            Some((part, after)) => {
                *rest = after;
                Ok(Some(part))
            }
            None if self.ignore_error => Ok(None),
            None => Err(format!("No {name} found on line number {number}: '{}'", String::from_utf8_lossy(line))),
        }
    }

    fn headers(&self, mut text: &[u8], number: u64) -> Result<Vec<RecordHeader>, String> {
        let mut headers = Vec::new();
        loop {
            let (pair, after) = match split_once(text, self.headers_separator.as_bytes()) {
                Some((pair, after)) => (pair, Some(after)),
                None => (text, None),
            };
            match split_once(pair, self.headers_key_separator.as_bytes()) {
                Some((key, _)) if self.is_null(key) => {
                    return Err(format!(
                        "Header keys should not be equal to the null marker '{}' as they can't be null",
                        String::from_utf8_lossy(key)
                    ));
                }
                Some((key, value)) => {
                    headers.push(RecordHeader { key: Bytes::copy_from_slice(key), value: self.field(value) });
                }
                None if self.ignore_error => {
                    headers.push(RecordHeader { key: Bytes::copy_from_slice(pair), value: None });
                }
                None => {
                    return Err(format!(
                        "No header key separator found in pair '{}' on line number {number}",
                        String::from_utf8_lossy(pair)
                    ));
                }
            }
            match after {
                Some(after) => text = after,
                None => return Ok(headers),
            }
        }
    }

    fn field(&self, field: &[u8]) -> Option<Bytes> {
        (!self.is_null(field)).then(|| Bytes::copy_from_slice(field))
    }

    fn is_null(&self, field: &[u8]) -> bool {
        self.null_marker.as_ref().is_some_and(|marker| marker.as_bytes() == field)
    }
}

fn split_once<'a>(text: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    if separator.is_empty() {
        return Some((&[], text));
    }
    let at = text.windows(separator.len()).position(|window| window == separator)?;
    Some((&text[..at], &text[at + separator.len()..]))
}

/// Shells make it hard to write a tab: `\t` and `\n` mean what they look like.
fn unescape(value: &str) -> String {
    value.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::LineReader;

    fn check(properties: &str, line: &str, expected: &Expect) {
        let properties = properties.split(' ').filter_map(|pair| pair.split_once('='));
        let properties: Vec<_> = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let text = match LineReader::new("t", &properties).and_then(|reader| reader.read(line.as_bytes(), 7)) {
            Err(error) => error,
            Ok(record) => {
                let show = |bytes: &Option<bytes::Bytes>| {
                    bytes.as_ref().map_or("null".to_owned(), |bytes| format!("{:?}", String::from_utf8_lossy(bytes)))
                };
                let headers = record
                    .headers
                    .iter()
                    .map(|header| format!(" {}={}", String::from_utf8_lossy(&header.key), show(&header.value)));
                format!("{} {}{}", show(&record.key), show(&record.value), headers.collect::<String>())
            }
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn a_line_is_a_value() {
        check("", "a:b", &expect![[r#"null "a:b""#]]);
        check("", "", &expect![[r#"null """#]]);
    }

    #[test]
    fn a_key_stands_before_its_separator() {
        check("parse.key=true key.separator=:", "k:v:w", &expect![[r#""k" "v:w""#]]);
        check("parse.key=true", "k\tv", &expect![[r#""k" "v""#]]);
        check(
            "parse.key=true key.separator=:",
            "no key",
            &expect!["No key separator found on line number 7: 'no key'"],
        );
        check("parse.key=true ignore.error=true", "no key", &expect![[r#"null "no key""#]]);
    }

    #[test]
    fn headers_stand_before_the_key() {
        let properties = "parse.key=true parse.headers=true";
        check(properties, "a:1,b:2\tk\tv", &expect![[r#""k" "v" a="1" b="2""#]]);
        check(properties, "a\tk\tv", &expect!["No header key separator found in pair 'a' on line number 7"]);
    }

    #[test]
    fn the_null_marker_stands_for_nothing_at_all() {
        let properties = "parse.key=true parse.headers=true null.marker=NULL";
        check(properties, "a:NULL\tNULL\tNULL", &expect!["null null a=null"]);
        check(properties, "NULL\tk\tv", &expect![[r#""k" "v""#]]);
        check(
            properties,
            "NULL:1\tk\tv",
            &expect!["Header keys should not be equal to the null marker 'NULL' as they can't be null"],
        );
    }

    #[test]
    fn separators_must_differ() {
        check(
            "headers.separator=: parse.headers=true",
            "",
            &expect!["headers.separator and headers.key.separator may not be equal"],
        );
        check("null.marker=, parse.headers=true", "", &expect!["null.marker and headers.separator may not be equal"]);
    }
}
