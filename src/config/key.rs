//! A configuration key: the contents of its declaration in [`crate::config::keys`], and what a reload does with
//! it.
//!
//! Plain data, usable from any thread.

/// One key of one table or of one group of keys, as declared.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in the file.
    pub name: &'static str,
    /// Its documentation in one or two sentences of Markdown. See [`Key::text`].
    pub doc: &'static str,
    /// The type of its value, for people: `duration`.
    pub kind: &'static str,
    /// Its default, as a value of the file or in words: `"2s"`, `for ever`. Empty when there is nothing to say;
    /// `required` when it must be written.
    pub default: fn() -> String,
    /// Its name in messages, when the name alone would be ambiguous: `timeout client`.
    pub label: Option<&'static str>,
    /// Least and greatest number, both allowed.
    pub bounds: Option<(i64, i64)>,
    /// An example value for a hint.
    pub example: Option<&'static str>,
    /// HAProxy's names for it, as in its configuration: `option dontlognull`. Empty: HAProxy has no such key.
    pub haproxy: &'static [&'static str],
    /// What a reload does when its value has changed.
    pub reload: Effect,
}

/// The default of a key that must be written.
pub(super) const REQUIRED: &str = "required";

/// Ids of proxies, listeners and servers: HAProxy's are signed 32-bit numbers.
pub(super) const ID_BOUNDS: (i64, i64) = (1, i32::MAX as i64);
/// Highest `maxconn`.
pub const MAXCONN_MAX: i64 = 100_000_000;

/// Ports of TCP.
pub(super) const PORT_BOUNDS: (i64, i64) = (1, u16::MAX as i64);

impl Key {
    /// A key with the necessary attributes only; the macro `keys!` adds the others of a declaration.
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

    /// Its documentation on one line.
    pub fn text(&self) -> &'static str {
        self.doc.trim()
    }

    /// Its name in messages.
    pub fn label(&self) -> &'static str {
        self.label.unwrap_or(self.name)
    }

    /// Its name in a comparison of two configurations: `timeout.client`.
    pub fn path(&self) -> String {
        self.label().replace(' ', ".")
    }
}

/// The name of a key from the name of its field, in kebab-case.
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

/// What a reload does with a value that has changed. Ordered: when several keys of an object differ, the
/// greatest effect is reported for the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The objects below the key are compared one by one.
    Parts,
    /// The new value is used at once.
    AtOnce,
    /// The next log line uses the new value.
    NextLine,
    /// The next command on the runtime socket uses the new value.
    NextCommand,
    /// The listening socket stays open and gets the new value.
    SameSocket,
    /// Sessions that begin after the reload use the new value; older ones keep the old one.
    NextConnection,
    /// The server's health starts over; its sessions go on.
    HealthAnew,
    /// A listening socket cannot get the new value: a new one is opened.
    NewSocket,
    /// The old value stays until a restart.
    Restart,
}

impl Effect {
    /// The effect on connections.
    pub fn text(self) -> &'static str {
        match self {
            Self::Parts | Self::AtOnce => "holds at once",
            Self::NextLine => "holds for the next line",
            Self::NextCommand => "holds for the next command",
            Self::SameSocket => "the socket stays open",
            Self::NextConnection => "holds for the next connection",
            Self::HealthAnew => "its health starts again, its sessions go on",
            Self::NewSocket => "is opened before anything else changes",
            Self::Restart => "stays as it is until rlb is started again",
        }
    }
}

/// A key whose value differs between two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key, as in the file; a key of a nested table as `timeout.client`.
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

    /// The same for a difference without a key, such as an order.
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

    /// The effect on the object; `None` when nothing differs.
    pub(super) fn effect(&self) -> Option<Effect> {
        self.0.iter().map(|one| one.effect).max()
    }

    /// The keys that keep their old value until a restart, and the others.
    pub(super) fn split(self) -> (Vec<Difference>, Vec<Difference>) {
        let restart = |one: &Difference| one.effect == Effect::Restart;
        self.0.into_iter().partition(restart)
    }
}
