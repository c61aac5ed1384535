//! Lines of a log, without what differs from run to run: times, ports, process ids.

/// The line of a session, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionLine {
    /// The client's port; 0 on a unix socket.
    pub(crate) port: u16,
    /// The parts that are compared, with their names.
    pub(crate) parts: Vec<(&'static str, String)>,
}

impl SessionLine {
    /// Reads a line as `option tcplog` describes it; `None` for other lines.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| is_date(word))?;
        let (client, port) = words.get(at.checked_sub(1)?)?.rsplit_once(':')?;
        let [frontend, server, times, bytes, letters, counts, queues] =
            words[at + 1..].try_into().ok()?;
        let (backend, server) = server.split_once('/')?;
        let (counts, retries) = counts.rsplit_once('/')?;
        let (backend, server) = (backend.to_owned(), server.to_owned());
        let parts = vec![
            ("prefix", numberless(&words[..at - 1].join(" "))),
            ("client", client.to_owned()),
            ("frontend", frontend.to_owned()),
            ("backend", backend),
            ("server", server),
            ("times", signs(times)),
            ("bytes", bytes.to_owned()),
            ("letters", letters.to_owned()),
            ("counts", counts.to_owned()),
            ("retries", retries.to_owned()),
            ("queues", queues.to_owned()),
        ];
        // The number behind `unix:` is that of the bind's line.
        let port = if client == "unix" {
            0
        } else {
            port.parse().ok()?
        };
        Some(Self { port, parts })
    }
}

impl SessionLine {
    /// Whether a part has this text.
    pub(crate) fn has(&self, part: &str, text: &str) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|(name, value)| *name == part && value == text)
    }

    /// Without how many sessions there were at its end.
    pub(crate) fn without_counts(mut self) -> Self {
        self.parts.retain(|(name, _)| *name != "counts");
        self
    }
}

/// A date in brackets: `[28/Nov/2026:15:00:00.123]`.
fn is_date(word: &str) -> bool {
    word.starts_with('[') && word.ends_with(']') && word.contains('/')
}

/// A text in which each number is `9`, except the one in angle brackets at its start.
pub(crate) fn numberless(text: &str) -> String {
    let head = text.find('>').map_or(0, |end| end + 1);
    let mut out = text[..head].to_owned();
    let mut digits = false;
    for character in text[head..].chars() {
        let digit = character.is_ascii_digit();
        if !digit {
            out.push(character);
        } else if !digits {
            out.push('9');
        }
        digits = digit;
    }
    out
}

/// Times of which only the sign is left, and a `+` before one.
fn signs(times: &str) -> String {
    let times = times.split('/').map(|time| match time {
        "-1" => "-1",
        time if time.starts_with('+') => "+n",
        _ => "n",
    });
    times.collect::<Vec<_>>().join("/")
}

#[test]
fn a_line_loses_its_times_and_ports() {
    let line = "<134>Nov 28 15:00:00 haproxy[12]: 127.0.0.1:5000 [28/Nov/2026:15:00:00.123] fe be/s1 1/-1/+30 \
                12 SC 1/1/0/0/+3 0/0";
    let line = SessionLine::parse(line).expect("a line of a session");
    assert_eq!(line.port, 5000);
    let text: Vec<&str> = line.parts.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(
        text.join(" "),
        "<134>Nov 9 9:9:9 haproxy[9]: 127.0.0.1 fe be s1 n/-1/+n 12 SC 1/1/0/0 +3 0/0"
    );
    assert_eq!(
        SessionLine::parse("<130>Nov 28 15:00:00 haproxy[12]: Server be/s1 is DOWN"),
        None
    );
}
