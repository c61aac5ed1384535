//! The answers to commands: their prefixes removed, and whether the commands have succeeded. Pure.

/// Sent before the commands, as HAProxy's own tools do: afterwards errors have a severity prefix.
pub(super) const MARK_ERRORS: &str = "set severity-output number";
/// Answers of failed commands to which HAProxy gives no error prefix.
const UNMARKED_FAILURES: [&str; 3] = ["Unknown command", "Session not found.", "Success=0"];
/// The least severe level that is a failure: `LOG_ERR` of syslog(3).
const SEVERITY_ERROR: u8 = 3;

/// The answers to the commands after [`MARK_ERRORS`] without their prefixes, and whether all commands have
/// succeeded.
pub(super) fn unmarked(answer: &str) -> (String, bool) {
    // The empty line is the answer to [`MARK_ERRORS`] itself. Without it the socket has refused the client or
    // the whole line, or has not answered.
    let marked = answer.strip_prefix('\n');
    let mut succeeded = marked.is_some();
    let answer = marked.unwrap_or(answer);
    let mut text = String::with_capacity(answer.len());
    let mut begins = true;
    for line in answer.split_inclusive('\n') {
        let (severity, line) = match severity(line) {
            Some((severity, rest)) if begins => (Some(severity), rest),
            _ => (None, line),
        };
        let failure = severity.is_some_and(|it| it <= SEVERITY_ERROR)
            || begins && UNMARKED_FAILURES.iter().any(|it| line.starts_with(it));
        succeeded &= !failure;
        text.push_str(line);
        begins = line == "\n";
    }
    (text, succeeded)
}

/// The number of `[3]: …`, and the rest.
fn severity(line: &str) -> Option<(u8, &str)> {
    let (number, rest) = line.strip_prefix('[')?.split_once("]: ")?;
    Some((number.parse().ok().filter(|it| *it <= 7)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 18.
    #[test]
    fn fault_18_a_failed_command_is_told_from_a_successful_one() {
        for (answer, text, succeeded) in [
            ("\n\n", "\n", true),
            ("", "", false),
            ("Permission denied\n", "Permission denied\n", false),
            ("\n[6]: 3.0.0\n\n", "3.0.0\n\n", true),
            ("\n[3]: No such server.\n\n", "No such server.\n\n", false),
            ("\n# pxname,\n[3]: x,\n\n", "# pxname,\n[3]: x,\n\n", true),
            ("\n\n[3]: a\n\n\n", "\na\n\n\n", false),
            (
                "\n[6]: Unknown command: 'x'\n\n",
                "Unknown command: 'x'\n\n",
                false,
            ),
            ("\nSession not found.\n\n", "Session not found.\n\n", false),
            ("\nSuccess=0\n--\nno\n\n", "Success=0\n--\nno\n\n", false),
            ("\nSuccess=1\n--\nyes\n\n", "Success=1\n--\nyes\n\n", true),
        ] {
            assert_eq!(unmarked(answer), (text.to_owned(), succeeded), "{answer:?}");
        }
    }
}
