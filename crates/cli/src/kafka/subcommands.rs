//! Command lines with sub-commands, as Kafka's newer tools read them (with argparse4j): an option may have a short name,
//! a flag takes no argument, and what is wrong is told below a line of usage.

use std::str::FromStr;

use super::Failure;

/// An option of a tool or of one of its commands.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// With its dashes.
    pub name: &'static str,
    /// With its dash; none if empty.
    pub short: &'static str,
    pub takes_value: bool,
    pub help: &'static str,
}

/// An option with a value.
pub const fn option(name: &'static str, short: &'static str, help: &'static str) -> Argument {
    Argument { name, short, takes_value: true, help }
}

/// An option without.
pub const fn switch(name: &'static str, help: &'static str) -> Argument {
    Argument { name, short: "", takes_value: false, help }
}

/// A command of a tool, and its options.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    pub name: &'static str,
    pub help: &'static str,
    pub arguments: &'static [Argument],
}

/// A tool with commands.
#[derive(Clone, Copy, Debug)]
pub struct Grammar {
    pub tool: &'static str,
    pub purpose: &'static str,
    /// May stand before the command.
    pub arguments: &'static [Argument],
    pub commands: &'static [Command],
}

/// What a command line says.
#[derive(Debug)]
pub struct Parsed {
    pub command: &'static str,
    given: Vec<(&'static str, String)>,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Request {
    Run(Parsed),
    /// To be printed, with exit code 0.
    Help(String),
}

impl Grammar {
    pub fn parse(&self, words: &[String]) -> Result<Request, Failure> {
        let mut command: Option<&Command> = None;
        let mut given = vec![];
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "-h" || word == "--help" {
                return Ok(Request::Help(self.help(command)));
            }
            if !word.starts_with('-') {
                if command.is_some() {
                    return Err(self.refuse(&format!("unrecognized arguments: '{word}'")));
                }
                command = self.commands.iter().find(|known| known.name == word);
                if command.is_none() {
                    let names = self.commands.iter().map(|known| format!("'{}'", known.name)).collect::<Vec<_>>();
                    return Err(self.refuse(&format!("invalid choice: '{word}' (choose from {})", names.join(", "))));
                }
                continue;
            }
            let (name, attached) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            // A tool's own options stand before its command only.
            let known = command.map_or(self.arguments, |command| command.arguments);
            let Some(argument) = known.iter().find(|known| known.name == name || (known.short == name)) else {
                return Err(self.refuse(&format!("unrecognized arguments: '{name}'")));
            };
            let value = match (argument.takes_value, attached) {
                (false, _) => String::new(),
                (true, Some(value)) => value,
                (true, None) => match words.next() {
                    Some(value) => value.clone(),
                    None => return Err(self.refuse(&format!("argument {}: expected one argument", argument.shown()))),
                },
            };
            given.retain(|(name, _)| *name != argument.name);
            given.push((argument.name, value));
        }
        match command {
            Some(command) => Ok(Request::Run(Parsed { command: command.name, given })),
            None => Err(self.refuse("too few arguments")),
        }
    }

    /// Usage and what is wrong.
    #[must_use]
    pub fn refuse(&self, message: &str) -> Failure {
        let names = self.commands.iter().map(|command| command.name).collect::<Vec<_>>().join(",");
        let tool = self.tool;
        Failure::Message(format!("usage: {tool} [-h] {{{names}}} ...\n{tool}: error: {message}"))
    }

    /// Refuses a command line without this option.
    pub fn require<'a>(&self, parsed: &'a Parsed, names: &[&str]) -> Result<&'a str, Failure> {
        let found = names.iter().find_map(|name| parsed.value(name));
        found.ok_or_else(|| match names {
            [name] => self.refuse(&format!("argument {name} is required")),
            names => self.refuse(&format!("one of the arguments {} is required", names.join(" "))),
        })
    }

    fn help(&self, command: Option<&Command>) -> String {
        let rows: Vec<(String, &str)> = match command {
            Some(command) => command.arguments.iter().map(|argument| (argument.shown(), argument.help)).collect(),
            None => {
                let commands = self.commands.iter().map(|command| (command.name.to_owned(), command.help));
                commands.chain(self.arguments.iter().map(|argument| (argument.shown(), argument.help))).collect()
            }
        };
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let name = command.map_or_else(|| "COMMAND".to_owned(), |command| command.name.to_owned());
        let about = command.map_or(self.purpose, |command| command.help);
        let rows: String = rows.iter().map(|(name, help)| format!("  {name:<width$}  {help}\n")).collect();
        format!("usage: {} [-h] {name} ...\n\n{about}\n\n{rows}", self.tool)
    }
}

impl Argument {
    fn shown(&self) -> String {
        if self.short.is_empty() { self.name.to_owned() } else { format!("{}/{}", self.name, self.short) }
    }
}

impl Parsed {
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// The value as a number, if the option was given.
    pub fn number<N: FromStr>(&self, name: &str, grammar: &Grammar) -> Result<Option<N>, Failure> {
        let parse = |text: &str| {
            text.parse().map_err(|_| grammar.refuse(&format!("argument {name}: could not convert '{text}' to Integer")))
        };
        self.value(name).map(parse).transpose()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::{Command, Grammar, Request, option, switch};

    const GRAMMAR: Grammar = Grammar {
        tool: "kafka-x",
        purpose: "Does x.",
        arguments: &[option("--server", "-b", "Where.")],
        commands: &[Command {
            name: "go",
            help: "Goes.",
            arguments: &[switch("--fast", "Fast."), option("--id", "-i", "Who.")],
        }],
    };

    fn check(line: &str, expected: Expect) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let text = match GRAMMAR.parse(&words) {
            Ok(Request::Run(parsed)) => format!("{} {:?}", parsed.command, parsed.given),
            Ok(Request::Help(text)) => text,
            Err(failure) => failure.to_string(),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn commands_have_options_of_their_own() {
        check("--server a:1 go --fast -i 3", expect![[r#"go [("--server", "a:1"), ("--fast", ""), ("--id", "3")]"#]]);
        check("go --id=3", expect![[r#"go [("--id", "3")]"#]]);
        check(
            "go --server a:1",
            expect![[r#"
                usage: kafka-x [-h] {go} ...
                kafka-x: error: unrecognized arguments: '--server'"#]],
        );
        check(
            "stop",
            expect![[r#"
                usage: kafka-x [-h] {go} ...
                kafka-x: error: invalid choice: 'stop' (choose from 'go')"#]],
        );
        check(
            "",
            expect![[r#"
                usage: kafka-x [-h] {go} ...
                kafka-x: error: too few arguments"#]],
        );
        check(
            "go -h",
            expect![[r#"
                usage: kafka-x [-h] go ...

                Goes.

                  --fast   Fast.
                  --id/-i  Who.
            "#]],
        );
    }
}
