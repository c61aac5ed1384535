//! A configuration key: what a declaration in [`crate::config::keys`] says of it, and what a reload
//! does with it.
//!
//! Plain data, usable from any thread.

/// One key of one table or of one group of keys, as declared.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The word of the file.
    pub name: &'static str,
    /// What it is, in one sentence or two, as Markdown. See [`Key::text`].
    pub doc: &'static str,
    /// Type of its value, for people: `duration`.
    pub kind: &'static str,
    /// What holds where it is not written, as a value of the file or as words: `"2s"`, `for ever`.
    /// Empty where nothing is to be said; `required` where it must be written.
    pub default: fn() -> String,
    /// Its name in messages, where the name alone would not say which one: `timeout client`.
    pub label: Option<&'static str>,
    /// Least and greatest number, both allowed.
    pub bounds: Option<(i64, i64)>,
    /// A value to show in a hint.
    pub example: Option<&'static str>,
    /// HAProxy's words for it, as its configuration has them: `option dontlognull`. Empty: HAProxy
    /// has nothing like it.
    pub haproxy: &'static [&'static str],
    /// What a reload does when its value differs.
    pub reload: Effect,
}

/// The default of a key that must be written.
pub(super) const REQUIRED: &str = "required";

/// Numbers of proxies, listeners and servers: HAProxy's are signed 32 bit numbers.
pub(super) const ID_BOUNDS: (i64, i64) = (1, i32::MAX as i64);
/// Ports of TCP.
pub(super) const PORT_BOUNDS: (i64, i64) = (1, u16::MAX as i64);

impl Key {
    /// A key of which only the indispensable is said; the macro `keys!` adds what a declaration says
    /// besides.
    pub(super) const fn new(
        name: &'static str,
        doc: &'static str,
        kind: &'static str,
        default: fn() -> String,
    ) -> Self {
        Self {
            name,
            doc,
            kind,
            default,
            label: None,
            bounds: None,
            example: None,
            haproxy: &[],
            reload: Effect::Parts,
        }
    }

    /// What it is, on one line.
    pub fn text(&self) -> &'static str {
        self.doc.trim()
    }

    /// What messages call it.
    pub fn label(&self) -> &'static str {
        self.label.unwrap_or(self.name)
    }

    /// What a comparison of two configurations calls it: `timeout.client`.
    pub fn path(&self) -> String {
        self.label().replace(' ', ".")
    }
}

/// The name of a key: the name of its field, in kebab-case.
pub(super) const fn kebab<const N: usize>(field: &str) -> [u8; N] {
    let mut name = [0; N];
    let mut at = 0;
    while at < N {
        let letter = field.as_bytes()[at];
        name[at] = if letter == b'_' { b'-' } else { letter };
        at += 1;
    }
    name
}

/// What a reload does with a value that differs. In order: when several keys of one object differ,
/// the last of their effects is what is told of the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The objects below the key are compared one by one.
    Parts,
    /// The new value is used from the moment of the reload.
    AtOnce,
    /// The next line of the log is written by the new value.
    NextLine,
    /// The next command at the runtime socket is judged by the new value.
    NextCommand,
    /// A listening socket stays open and takes the new value.
    SameSocket,
    /// Sessions that begin after the reload have the new value; those before it keep theirs.
    NextConnection,
    /// What checks have found out about the server is forgotten; its sessions go on.
    HealthAnew,
    /// A listening socket cannot take the new value: another one is opened.
    NewSocket,
    /// The old value stays until the process is started again.
    Restart,
}

impl Effect {
    /// What it means for connections.
    pub fn text(self) -> &'static str {
        match self {
            Self::Parts | Self::AtOnce => "holds at once",
            Self::NextLine => "holds for the next line",
            Self::NextCommand => "holds for the next command",
            Self::SameSocket => "the socket stays open",
            Self::NextConnection => "holds for the next connection",
            Self::HealthAnew => "its health begins anew, its sessions go on",
            Self::NewSocket => "is opened before anything else changes",
            Self::Restart => "stays as it is until rlb is started again",
        }
    }
}

/// A key whose value differs between two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key, as in the file; that of a table inside a table as `timeout.client`.
    pub key: String,
    /// Value before.
    pub from: String,
    /// Value after.
    pub to: String,
    /// What a reload does with it.
    pub effect: Effect,
}

/// The keys of one object that differ.
#[derive(Debug, Default)]
pub(super) struct Differences(Vec<Difference>);

impl Differences {
    /// Adds `key` when `old` and `new` are not equal.
    pub(super) fn compare<T: PartialEq>(
        &mut self,
        key: &Key,
        (old, new): (&T, &T),
        show: impl Fn(&T) -> String,
    ) {
        self.compare_as(&key.path(), key.reload, (old, new), show);
    }

    /// The same for what has no key of its own, such as an order.
    pub(super) fn compare_as<T: PartialEq>(
        &mut self,
        key: &str,
        effect: Effect,
        (old, new): (&T, &T),
        show: impl Fn(&T) -> String,
    ) {
        if old != new {
            self.0.push(Difference {
                key: key.to_owned(),
                from: show(old),
                to: show(new),
                effect,
            });
        }
    }

    /// What a reload does with the object; `None` when nothing differs.
    pub(super) fn effect(&self) -> Option<Effect> {
        self.0.iter().map(|one| one.effect).max()
    }

    /// The keys that keep their old value until a restart, and the others.
    pub(super) fn split(self) -> (Vec<Difference>, Vec<Difference>) {
        let restart = |one: &Difference| one.effect == Effect::Restart;
        self.0.into_iter().partition(restart)
    }
}
