//! Users and groups by name, from /etc/passwd and /etc/group. Usable from any thread; reads a file.

use std::io;

/// The number of a user: `text` itself, or that of the name.
///
/// # Errors
/// When there is no such user, or the file cannot be read.
pub fn user(text: &str) -> io::Result<u32> {
    number("/etc/passwd", text)
}

/// The number of a group: `text` itself, or that of the name.
///
/// # Errors
/// When there is no such group, or the file cannot be read.
pub fn group(text: &str) -> io::Result<u32> {
    number("/etc/group", text)
}

fn number(path: &str, text: &str) -> io::Result<u32> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let lines = std::fs::read_to_string(path)?;
    find(&lines, text).ok_or_else(|| {
        let message = format!("`{text}` is not in {path}");
        io::Error::new(io::ErrorKind::NotFound, message)
    })
}

/// The third field of the line that begins with `name`.
fn find(lines: &str, name: &str) -> Option<u32> {
    let mut lines = lines.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let found = fields.next()? == name;
        let number = fields.nth(1)?;
        number.parse().ok().filter(|_| found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found() {
        let text = "root:x:0:0:root:/root:/bin/sh\n\nbroken\nadm:x:4:syslog\n";
        assert_eq!((find(text, "root"), find(text, "adm")), (Some(0), Some(4)));
        assert_eq!((find(text, "roo"), find(text, "broken")), (None, None));
        assert_eq!(user("4711").ok(), Some(4711));
        assert!(group("no such group").is_err());
    }
}
