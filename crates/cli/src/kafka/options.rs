//! Options in the manner of Kafka's tools, which read them with jopt-simple: `--name value`, `--name=value` or
//! `-name value`, no abbreviations, and words that are no options are passed over.

use std::fmt::Write as _;
use std::str::FromStr;

use super::Failure;

/// What may follow an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    None,
    /// The next word, whatever it looks like. The text describes it in the help.
    Required(&'static str),
    /// The next word unless it looks like an option.
    Optional(&'static str),
}

/// One option of a tool.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    pub name: &'static str,
    pub argument: Argument,
    pub help: &'static str,
}

/// An option without argument.
#[must_use]
pub const fn flag(name: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, argument: Argument::None, help }
}

/// An option with an argument.
#[must_use]
pub const fn value(name: &'static str, describes: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, argument: Argument::Required(describes), help }
}

/// An option that may have an argument.
#[must_use]
pub const fn maybe_value(name: &'static str, describes: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, argument: Argument::Optional(describes), help }
}

/// The options that were given.
#[derive(Debug)]
pub struct Options {
    specs: &'static [OptionSpec],
    /// In their order, each with its argument.
    given: Vec<(&'static str, Option<String>)>,
    /// Words that belong to no option.
    pub words: Vec<String>,
    is_empty: bool,
}

impl Options {
    /// Reads `arguments`. `--help` and `--version` belong to every tool.
    pub fn parse(specs: &'static [OptionSpec], arguments: &[String]) -> Result<Self, Failure> {
        let mut options = Self { specs, given: vec![], words: vec![], is_empty: arguments.is_empty() };
        let mut arguments = arguments.iter().peekable();
        while let Some(word) = arguments.next() {
            if word == "--" {
                options.words.extend(arguments.by_ref().cloned());
                break;
            }
            let Some(body) = option_body(word) else {
                options.words.push(word.clone());
                continue;
            };
            let (name, attached) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            let Some((name, argument)) = options.find(name) else {
                // A cluster of one-letter options is told by its first unknown letter.
                let unknown = if word.starts_with("--") { name } else { &name[..char_end(name)] };
                return Err(Failure::Message(format!("{unknown} is not a recognized option")));
            };
            let value = match (argument, attached) {
                (Argument::None, _) => None,
                (_, Some(attached)) => Some(attached),
                (Argument::Required(_), None) => match arguments.next() {
                    Some(next) => Some(next.clone()),
                    None => return Err(Failure::Message(format!("Option {name} requires an argument"))),
                },
                (Argument::Optional(_), None) => arguments.next_if(|next| option_body(next).is_none()).cloned(),
            };
            options.given.push((name, value));
        }
        Ok(options)
    }

    fn find(&self, name: &str) -> Option<(&'static str, Argument)> {
        match name {
            "help" => Some(("help", Argument::None)),
            "version" => Some(("version", Argument::None)),
            _ => self.specs.iter().find(|spec| spec.name == name).map(|spec| (spec.name, spec.argument)),
        }
    }

    /// Whether the option was given.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        debug_assert!(self.find(name).is_some(), "no option {name}");
        self.given.iter().any(|(given, _)| *given == name)
    }

    /// The option's argument, if it was given one. Giving it twice is an error.
    pub fn value(&self, name: &str) -> Result<Option<&str>, Failure> {
        let mut values = self.values(name);
        let first = values.next();
        if values.next().is_some() {
            let message = format!("Found multiple arguments for option {name}, but you asked for only one");
            return Err(Failure::Message(message));
        }
        Ok(first)
    }

    /// The arguments of all uses of the option.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        debug_assert!(self.find(name).is_some(), "no option {name}");
        self.given.iter().filter(move |(given, _)| *given == name).filter_map(|(_, value)| value.as_deref())
    }

    /// The option's argument as a number.
    pub fn number<N: FromStr>(&self, name: &str) -> Result<Option<N>, Failure> {
        let unreadable = |text| Failure::Message(format!("Cannot parse argument '{text}' of option {name}"));
        self.value(name)?.map(|text| text.parse().map_err(|_| unreadable(text))).transpose()
    }

    /// Ends the tool where help or the version is asked for, or nothing at all: `Some` exit code if it did.
    pub fn help_or_version(
        &self,
        console: &mut crate::console::Console<'_>,
        purpose: &str,
    ) -> Result<Option<u8>, Failure> {
        if self.is_empty || self.has("help") {
            return Err(self.usage(purpose));
        }
        if self.has("version") {
            console.line(VERSION)?;
            return Ok(Some(0));
        }
        Ok(None)
    }

    /// Refuses the command line: a message, then all options.
    #[must_use]
    pub fn usage(&self, message: &str) -> Failure {
        Failure::Message(format!("{message}\n{}", self.help().trim_end()))
    }

    /// Each of these must be there.
    pub fn require(&self, names: &[&str]) -> Result<(), Failure> {
        match names.iter().find(|name| !self.has(name)) {
            Some(missing) => Err(self.usage(&format!("Missing required argument \"[{missing}]\""))),
            None => Ok(()),
        }
    }

    /// None of `others` may stand beside `name`.
    pub fn conflict(&self, name: &str, others: &[&str]) -> Result<(), Failure> {
        match others.iter().find(|other| self.has(other)) {
            Some(other) if self.has(name) => {
                Err(self.usage(&format!("Option \"[{name}]\" can't be used with option \"[{other}]\"")))
            }
            _ => Ok(()),
        }
    }

    /// Two columns of 80 characters in total, sorted, as Kafka's tools lay out their help.
    fn help(&self) -> String {
        let mut rows: Vec<(String, &str)> = self.specs.iter().map(|spec| (left(spec), spec.help)).collect();
        rows.push(("--help".to_owned(), "Print usage information."));
        rows.push(("--version".to_owned(), "Display Kafka version."));
        rows.sort();
        const LEFT: usize = 38;
        const RIGHT: usize = 39;
        let mut text = format!("{:<LEFT$} {}\n{:<LEFT$} {}\n", "Option", "Description", "------", "-----------");
        for (left, right) in rows {
            let (left, right) = (wrap(&left, LEFT), wrap(right, RIGHT));
            for line in 0..left.len().max(right.len()) {
                let cell = |lines: &[String]| lines.get(line).cloned().unwrap_or_default();
                let row = format!("{:<LEFT$} {}", cell(&left), cell(&right));
                let _ = writeln!(text, "{}", row.trim_end());
            }
        }
        text
    }
}

/// The version of Kafka whose tools these are like.
pub const VERSION: &str = "4.3.1";

/// The word without its dashes, if it looks like an option. A single dash is a word.
fn option_body(word: &str) -> Option<&str> {
    word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|body| !body.is_empty())
}

fn char_end(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

fn left(spec: &OptionSpec) -> String {
    match spec.argument {
        Argument::None => format!("--{}", spec.name),
        Argument::Required(describes) => format!("--{} <{describes}>", spec.name),
        Argument::Optional(describes) => format!("--{} [{describes}]", spec.name),
    }
}

/// Lines of whole words; all but the first are indented.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        let is_start = line.trim().is_empty();
        if is_start || line.len() + 1 + word.len() <= width {
            if !is_start {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            lines.push(format!("  {word}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::{OptionSpec, Options, flag, maybe_value, value};

    const SPECS: &[OptionSpec] = &[
        flag("list", "List things."),
        value("topic", "topic", "The topic, of which there may be more than fits into one line of this help."),
        value("partitions", "# of partitions", "A number."),
        maybe_value("state", "state", "A state, or none."),
    ];

    fn check(line: &str, expected: Expect) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let text = match Options::parse(SPECS, &words) {
            Ok(options) => format!("{:?} {:?} {:?}", options.given, options.words, options.number::<i32>("partitions")),
            Err(failure) => failure.to_string(),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn options_are_read_as_kafka_reads_them() {
        check("--topic t --list", expect![[r#"[("topic", Some("t")), ("list", None)] [] Ok(None)"#]]);
        check("--topic=a=b -list x", expect![[r#"[("topic", Some("a=b")), ("list", None)] ["x"] Ok(None)"#]]);
        check("--state --list", expect![[r#"[("state", None), ("list", None)] [] Ok(None)"#]]);
        check("--state Empty", expect![[r#"[("state", Some("Empty"))] [] Ok(None)"#]]);
        check("--partitions -1", expect![[r#"[("partitions", Some("-1"))] [] Ok(Some(-1))"#]]);
        check("--topic", expect!["Option topic requires an argument"]);
        check("--frob", expect!["frob is not a recognized option"]);
        check("--top t", expect!["top is not a recognized option"]);
        check("-frob", expect!["f is not a recognized option"]);
        check(
            "--partitions abc",
            expect![[
                r#"[("partitions", Some("abc"))] [] Err(Message("Cannot parse argument 'abc' of option partitions"))"#
            ]],
        );
        check(
            "--partitions 1 --partitions 2",
            expect![[
                r#"[("partitions", Some("1")), ("partitions", Some("2"))] [] Err(Message("Found multiple arguments for option partitions, but you asked for only one"))"#
            ]],
        );
    }

    #[test]
    fn help_has_two_columns() {
        let options = Options::parse(SPECS, &[]).expect("nothing is in order");
        expect![[r#"
            Wrong.
            Option                                 Description
            ------                                 -----------
            --help                                 Print usage information.
            --list                                 List things.
            --partitions <# of partitions>         A number.
            --state [state]                        A state, or none.
            --topic <topic>                        The topic, of which there may be more
                                                     than fits into one line of this help.
            --version                              Display Kafka version."#]]
        .assert_eq(&options.usage("Wrong.").to_string());
    }
}
