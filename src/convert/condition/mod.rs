//! The conditions of `.if` and `.elif`.
//!
//! Pure. A condition is evaluated while it is read; it is nested at most [`DEPTH_MAX`] deep.

use super::environment::{Environment, VERSION};

/// Deepest nesting of parentheses.
const DEPTH_MAX: usize = 64;

/// What rlb can do of what HAProxy calls a feature.
pub const FEATURES: [&str; 11] = [
    "ACCEPT4",
    "CPU_AFFINITY",
    "EPOLL",
    "GETADDRINFO",
    "LINUX_SPLICE",
    "POLL",
    "PROMEX",
    "RT",
    "THREAD",
    "LIBCRYPT",
    "PRCTL",
];
/// What `enabled()` says yes to.
const ENABLED: [&str; 5] = ["EPOLL", "POLL", "SPLICE", "GETADDRINFO", "REUSEPORT"];

/// Whether a condition holds in this process.
///
/// # Errors
/// Why it cannot be read.
pub fn condition_holds(text: &str) -> Result<bool, String> {
    let process = |name: &str| std::env::var(name).ok();
    holds(text, &Environment::new(&process, &[]))
}

/// Whether the condition holds; nothing at all does not.
pub(super) fn holds(text: &str, environment: &Environment<'_>) -> Result<bool, String> {
    if text.is_empty() {
        return Ok(false);
    }
    let mut reader = Reader {
        rest: text,
        environment,
    };
    let value = reader.or(0)?;
    reader.blanks();
    match reader.rest.chars().next() {
        None => Ok(value),
        Some(other) => Err(format!(
            "`{other}` is not expected at the end of the condition"
        )),
    }
}

/// Whether what a condition says depends on the program that reads it.
pub(super) fn asks_for_the_program(text: &str) -> bool {
    let predicates = ["version_", "feature(", "enabled("];
    predicates.iter().any(|name| text.contains(name))
}

struct Reader<'a> {
    rest: &'a str,
    environment: &'a Environment<'a>,
}

impl Reader<'_> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn take(&mut self, token: &str) -> bool {
        self.blanks();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn or(&mut self, depth: usize) -> Result<bool, String> {
        let mut value = self.and(depth)?;
        while self.take("||") {
            value |= self.and(depth)?;
        }
        Ok(value)
    }

    fn and(&mut self, depth: usize) -> Result<bool, String> {
        let mut value = self.term(depth)?;
        while self.take("&&") {
            value &= self.term(depth)?;
        }
        Ok(value)
    }

    fn term(&mut self, depth: usize) -> Result<bool, String> {
        if depth > DEPTH_MAX {
            return Err("the condition is nested too deep".to_owned());
        }
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        self.blanks();
        let value = if self.take("(") {
            let value = self.or(depth + 1)?;
            if !self.take(")") {
                return Err("`(` without a closing `)`".to_owned());
            }
            value
        } else if self
            .rest
            .starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+')
        {
            self.number()?
        } else {
            self.predicate()?
        };
        Ok(value != negated)
    }

    fn number(&mut self) -> Result<bool, String> {
        let sign = usize::from(self.rest.starts_with(['-', '+']));
        let digits = self.rest[sign..]
            .find(|c: char| !c.is_ascii_hexdigit() && c != 'x')
            .map_or(self.rest.len(), |length| sign + length);
        let (number, rest) = self.rest.split_at(digits);
        if !number[sign..].starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!("`{}` is not a condition", self.rest));
        }
        self.rest = rest;
        Ok(number[sign..]
            .trim_start_matches("0x")
            .contains(|c: char| c != '0'))
    }

    fn predicate(&mut self) -> Result<bool, String> {
        let length = self.rest.find([' ', '(']).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(length);
        let number = match name {
            "defined" | "feature" | "version_atleast" | "version_before" | "enabled" => 1,
            "streq" | "strneq" | "strstr" => 2,
            "openssl_version_atleast"
            | "openssl_version_before"
            | "ssllib_name_startswith"
            | "awslc_api_atleast"
            | "awslc_api_before"
            | "fips_mode" => {
                return Err(format!(
                    "`{name}` asks for a TLS library, which rlb has not"
                ));
            }
            _ => return Err(format!("`{}` is not a condition", self.rest)),
        };
        self.rest = rest;
        let arguments = self.arguments()?;
        let [first, second] = match arguments.as_slice() {
            [one] if number == 1 => [one.as_str(), ""],
            [one, two] if number == 2 => [one.as_str(), two.as_str()],
            _ => return Err(format!("`{name}` takes {number} arguments")),
        };
        Ok(match name {
            "defined" => self.environment.value(first).is_some(),
            "feature" => FEATURES.contains(&first),
            "enabled" => ENABLED.contains(&first),
            "version_atleast" => version(first) <= VERSION,
            "version_before" => version(first) > VERSION,
            "streq" => first == second,
            "strneq" => first != second,
            _ => first.contains(second),
        })
    }

    /// `(one,"two")`: quotes and backslashes protect what is between them.
    fn arguments(&mut self) -> Result<Vec<String>, String> {
        let missing = || "a `)` is missing".to_owned();
        let inside = self.rest.strip_prefix('(').ok_or("expected a `(`")?;
        let mut arguments = vec![String::new()];
        let mut quote = None;
        let mut characters = inside.char_indices();
        while let Some((at, character)) = characters.next() {
            let last = arguments.last_mut().ok_or_else(missing)?;
            match (quote, character) {
                (None, ')') => {
                    self.rest = &inside[at + 1..];
                    return Ok(arguments);
                }
                (None, ',') => arguments.push(String::new()),
                (None, '"' | '\'') => quote = Some(character),
                (Some(open), _) if open == character => quote = None,
                (None | Some('"'), '\\') => {
                    last.push(characters.next().ok_or_else(missing)?.1);
                }
                _ => last.push(character),
            }
        }
        Err(missing())
    }
}

/// `2.4-dev19`, `3.0.1`: a development version is older than the one that it becomes.
fn version(text: &str) -> (u32, u32, u32) {
    let bare = text.split('-').next().unwrap_or_default();
    let mut numbers = bare.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

#[cfg(test)]
mod tests;
