//! The peer of a runtime socket, whether it may use the socket, and the log of its commands. Admin thread.
//!
//! The kernel checks the mode of a socket's file at `connect`. An abstract socket has no file, so the peer's
//! credentials (`SO_PEERCRED`, `SO_PEERGROUPS`, unix(7)) are checked against the configured mode, as if a file
//! with that mode belonged to the user and group of this process.

use crate::config::model::ApiLevel;
use crate::control::handover::Asker;
use crate::sys::raw::peer_groups;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use tokio::net::UnixStream;
use tracing::field::DisplayValue;

/// Most characters of a command or an answer that an event shows.
pub(in crate::admin) const LOGGED_CHARS_MAX: usize = 1024;
/// Seconds between two events about refused clients.
pub(in crate::admin) const REFUSED_EVERY: u64 = 1;

/// Who is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process of this machine, with its credentials at that time.
    Process(Credentials),
    /// A client over TCP; `None` when it has gone already.
    Tcp(Option<SocketAddr>),
    /// The client of a newer process.
    Passed(Asker),
}

/// The credentials of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    /// Effective user.
    uid: u32,
    /// Effective group.
    gid: u32,
    /// Supplementary groups.
    groups: Vec<u32>,
    /// 0 when this process cannot see its pid namespace.
    pid: i32,
}

impl Peer {
    /// The other end of `stream`.
    ///
    /// # Errors
    /// Those of `getsockopt`; none is expected for a connected unix socket.
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self::Process(Credentials {
            uid: credentials.uid(),
            gid: credentials.gid(),
            // A kernel before 4.13 does not tell: then only the effective group counts.
            groups: peer_groups(stream.as_fd()).unwrap_or_default(),
            pid: credentials.pid().unwrap_or(0),
        }))
    }

    /// What an older process is told of it, which is to run its command with `level` and to mark errors as
    /// `severity` says.
    pub(super) fn asker(&self, socket: &str, (level, severity): (ApiLevel, &str)) -> Asker {
        let (uid, pid, client) = self.identity();
        Asker {
            level,
            severity: severity.to_owned(),
            uid,
            pid,
            client,
            // A line break in it would end the field.
            socket: Some(printable(socket, LOGGED_CHARS_MAX)),
        }
    }

    /// The level that a newer process has granted it.
    pub(super) fn granted(&self) -> Option<ApiLevel> {
        match self {
            Self::Passed(asker) => Some(asker.level),
            Self::Process(_) | Self::Tcp(_) => None,
        }
    }

    /// The socket of a newer process that it has connected to, if that process has told.
    pub(super) fn socket(&self) -> Option<&str> {
        match self {
            Self::Passed(asker) => asker.socket.as_deref(),
            Self::Process(_) | Self::Tcp(_) => None,
        }
    }

    /// Whether it could connect to a socket file with `mode` that belongs to this process, which needs write
    /// permission (unix(7)). Root always can.
    pub(super) fn may_connect(&self, mode: u32) -> bool {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        match self {
            Self::Process(credentials) => credentials.may_write((uid, gid), mode),
            // The newer process has admitted it.
            Self::Tcp(_) | Self::Passed(_) => true,
        }
    }

    /// Its user and process, and its address over TCP.
    fn identity(&self) -> (Option<u32>, Option<i32>, Option<SocketAddr>) {
        match self {
            Self::Process(one) => (Some(one.uid), Some(one.pid), None),
            Self::Tcp(address) => (None, None, *address),
            Self::Passed(asker) => (asker.uid, asker.pid, asker.client),
        }
    }

    /// The same for events.
    fn fields(&self) -> (Option<u32>, Option<i32>, Option<DisplayValue<SocketAddr>>) {
        let (uid, pid, client) = self.identity();
        (uid, pid, client.map(tracing::field::display))
    }
}

impl Credentials {
    /// As the kernel decides: only the first matching class counts, of user, group and others.
    fn may_write(&self, (uid, gid): (u32, u32), mode: u32) -> bool {
        if self.uid == 0 {
            return true;
        }
        let bit = if self.uid == uid {
            0o200
        } else if self.gid == gid || self.groups.contains(&gid) {
            0o020
        } else {
            0o002
        };
        mode & bit != 0
    }
}

/// Logs that a client is about to run a command that needs the level admin.
pub(super) fn log_command(socket: &str, peer: &Peer, command: &str) {
    let (uid, pid, client) = peer.fields();
    tracing::info!(socket, uid, pid, client, command, "runtime command");
}

/// Logs that such a command failed.
pub(super) fn log_failure(socket: &str, peer: &Peer, (command, reason): (&str, &str)) {
    let (uid, pid, client) = peer.fields();
    tracing::warn!(
        socket,
        uid,
        pid,
        client,
        command,
        reason,
        "runtime command failed"
    );
}

/// Logs that a client may not use the socket; `unlogged` others were refused since the last event.
pub(super) fn log_refusal(socket: &str, peer: &Peer, unlogged: u64) {
    let (uid, pid, client) = peer.fields();
    tracing::warn!(socket, uid, pid, client, unlogged, "runtime client refused");
}

/// At most `chars_max` characters of `text`, because a client's text goes to terminals and logs. Control characters are
/// `\xNN`, and those that change the direction of the text after them `\u{NNNN}`.
pub(in crate::admin) fn printable(text: &str, chars_max: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(chars_max));
    for character in text.chars().take(chars_max) {
        if character.is_control() {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\x{:02x}", u32::from(character));
        } else if changes_direction(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    if text.chars().nth(chars_max).is_some() {
        shown.push('…');
    }
    shown
}

/// Whether a character has the property `Bidi_Control` (Unicode Standard Annex 9).
fn changes_direction(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 15.
    #[test]
    fn fault_15_the_first_class_that_a_peer_belongs_to_decides() {
        let peer = |uid, gid, groups: &[u32]| Credentials {
            uid,
            gid,
            groups: groups.to_vec(),
            pid: 1,
        };
        let owner = (10, 20);
        for (uid, gid, groups, mode, admitted) in [
            (0, 0, &[][..], 0o000, true),
            (10, 99, &[], 0o600, true),
            (10, 20, &[], 0o066, false),
            (11, 20, &[], 0o600, false),
            (11, 20, &[], 0o660, true),
            (11, 99, &[5, 20], 0o660, true),
            (11, 99, &[5, 20], 0o606, false),
            (11, 99, &[5], 0o660, false),
            (11, 99, &[], 0o666, true),
        ] {
            let found = peer(uid, gid, groups).may_write(owner, mode);
            assert_eq!(found, admitted, "{uid} {gid} {groups:?} {mode:o}");
        }
    }

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(
            printable("a\0b\x1b[31m\u{85}é", 99),
            "a\\x00b\\x1b[31m\\x85é"
        );
        assert_eq!(printable("a\u{202e}b\u{2066}", 99), "a\\u{202e}b\\u{2066}");
        assert_eq!(printable("abcd", 3), "abc…");
        assert_eq!(printable("abc", 3), "abc");
    }
}
