//! The words of files as HAProxy reads them: what `-dC` prints. Runs on the main thread.

use super::Outside;
use super::environment::Environment;
use super::lexer;
use super::sections::{self, Input};
use crate::config::haproxy::Index;
use std::fmt::Write;

/// A line for each line of `inputs` that is not empty: its words, quotes and variables resolved, without comments.
/// `numbers`: each behind the number of its line. Nothing of it is judged.
///
/// # Errors
/// The first line whose words cannot be told: its file and number, and why.
pub fn dump(inputs: &[Input], numbers: bool, outside: Outside<'_>) -> Result<String, String> {
    let files: Vec<String> = inputs.iter().map(|input| input.name.clone()).collect();
    let mut environment = Environment::new(outside.variable, &files);
    let index = Index::shared();
    let mut out = String::new();
    for (file, input) in inputs.iter().enumerate() {
        environment.file.clone_from(&input.name);
        let bytes = input.bytes.as_slice();
        let bytes = bytes.strip_prefix(sections::BOM).unwrap_or(bytes);
        for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
            if line.is_empty() {
                continue;
            }
            environment.line = number;
            let words = lexer::split(line, &environment).map_err(|problem| {
                format!("parsing [{}:{number}] : {}", files[file], problem.message)
            })?;
            if numbers {
                let _ = write!(out, "{number}\t");
            }
            let first = words.first().map_or("", |word| &word.text);
            if !sections::is_section(first, index) {
                out.push('\t');
            }
            for word in &words {
                let _ = write!(out, "{} ", word.text);
            }
            out.push('\n');
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dumped(text: &str, numbers: bool) -> Result<String, String> {
        let outside = Outside {
            variable: &|name| (name == "HOME").then(|| "/root".to_owned()),
            address: &|_| None,
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
        assert_eq!(dumped(text, false).as_deref(), Ok(said));
        let said = "1\tglobal \n2\t\tmaxconn 1 \n4\tlisten a \n";
        let text = "global\n  maxconn 1\n\nlisten a\n";
        assert_eq!(dumped(text, true).as_deref(), Ok(said));
        let problem = dumped("global\n  maxconn \"1\n", false).unwrap_err();
        assert!(problem.starts_with("parsing [a.cfg:2] : "), "{problem}");
    }
}
