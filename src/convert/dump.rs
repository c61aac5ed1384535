//! The words of files as HAProxy reads them: what `-dC` prints. Runs on the main thread.

use super::Outside;
use super::environment::Environment;
use super::lexer::{self, Word};
use super::sections::{self, Input};
use crate::config::haproxy::Index;
use std::fmt::Write;

/// A part of what is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dumped {
    /// Lines with the words.
    Words(String),
    /// A line whose words cannot be told: its file and number, and why.
    Problem(String),
    /// A file with such lines ends.
    Broken(String),
}

/// A line for each line of `inputs` that is not empty: its words, quotes and variables resolved, without comments.
/// `numbers`: each behind the number of its line. Nothing of it is judged. As in HAProxy a file ends at a zero byte.
pub fn dump(inputs: &[Input], numbers: bool, outside: Outside<'_>) -> Vec<Dumped> {
    let files: Vec<String> = inputs.iter().map(|input| input.name.clone()).collect();
    let mut environment = Environment::new(outside.variable, &files);
    let index = Index::shared();
    let mut parts = Vec::new();
    let mut out = String::new();
    for (file, input) in inputs.iter().enumerate() {
        environment.file.clone_from(&input.name);
        let bytes = input.bytes.as_slice();
        let bytes = bytes.strip_prefix(sections::BOM).unwrap_or(bytes);
        let zero = bytes.iter().position(|byte| *byte == 0);
        let bytes = &bytes[..zero.unwrap_or(bytes.len())];
        let mut last = 0;
        let mut broken = zero.is_some();
        let mut problem = |out: &mut String, number: usize, text: &str| {
            if !out.is_empty() {
                parts.push(Dumped::Words(std::mem::take(out)));
            }
            let text = format!("parsing [{}:{number}] : {text}", files[file]);
            parts.push(Dumped::Problem(text));
        };
        for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
            last = number;
            if line.is_empty() {
                continue;
            }
            environment.line = number;
            match lexer::split(line, &environment) {
                Ok(words) => write(&mut out, &words, numbers.then_some(number), index),
                Err(wrong) => {
                    problem(&mut out, number, &wrong.message);
                    broken = true;
                }
            }
        }
        if zero.is_some() {
            problem(&mut out, last, "a zero byte");
        }
        if broken {
            if !out.is_empty() {
                parts.push(Dumped::Words(std::mem::take(&mut out)));
            }
            parts.push(Dumped::Broken(files[file].clone()));
        }
    }
    if !out.is_empty() {
        parts.push(Dumped::Words(out));
    }
    parts
}

/// Writes the words of a line.
fn write(out: &mut String, words: &[Word], number: Option<usize>, index: &Index) {
    if let Some(number) = number {
        let _ = write!(out, "{number}\t");
    }
    let first = words.first().map_or("", |word| &word.text);
    if !sections::is_section(first, index) {
        out.push('\t');
    }
    for word in words {
        let _ = write!(out, "{} ", word.text);
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dumped(text: &str, numbers: bool) -> Vec<Dumped> {
        let outside = Outside {
            variable: &|name| (name == "HOME").then(|| "/root".to_owned()),
            address: &|_| None,
            folder: None,
            real_path: &|path| path.to_owned(),
        };
        let input = Input {
            name: "a.cfg".to_owned(),
            bytes: text.as_bytes().to_vec(),
        };
        dump(&[input], numbers, outside)
    }

    /// The expected text is what HAProxy 3.5 prints, which does it twice.
    #[test]
    fn words_are_as_in_haproxy() {
        let text = "# a comment\nglobal\n  presetenv Y \"${HOME}\" # b\n.if defined(X)\n\n  \
                    maxconn ${HOME}\n.endif\nlisten a\n  bind :\"${PORT-80}\" name x\\ y\n  \
                    acl x \"a$HOME\" 'b$HOME'\npeers p\n";
        let said = "\t\nglobal \n\tpresetenv Y /root \n\t.if defined(X) \n\tmaxconn ${HOME} \n\
                    \t.endif \nlisten a \n\tbind :80 name x y \n\tacl x a/root b$HOME \npeers p \n";
        let words = |text: &str| vec![Dumped::Words(text.to_owned())];
        assert_eq!(dumped(text, false), words(said));
        let said = "1\tglobal \n2\t\tmaxconn 1 \n4\tlisten a \n";
        let text = "global\n  maxconn 1\n\nlisten a\n";
        assert_eq!(dumped(text, true), words(said));
    }

    /// The words around a bad line are printed, and those before a zero byte.
    #[test]
    fn a_bad_line_ends_no_file_and_a_zero_byte_does() {
        let words = |text: &str| Dumped::Words(text.to_owned());
        let broken = Dumped::Broken("a.cfg".to_owned());
        let said = dumped("global\n  maxconn \"1\n  nbthread 1\n", false);
        let problem = Dumped::Problem("parsing [a.cfg:2] : a quote that is not closed".to_owned());
        let expected = [
            words("global \n"),
            problem,
            words("\tnbthread 1 \n"),
            broken.clone(),
        ];
        assert_eq!(said, expected);
        let said = dumped("global\n  maxconn\0 1\n  nbthread 1\n", false);
        let problem = Dumped::Problem("parsing [a.cfg:2] : a zero byte".to_owned());
        assert_eq!(said, [words("global \n\tmaxconn \n"), problem, broken]);
    }
}
