//! The kinds of values of keys: how a value is written, its type after validation, the meaning of a table
//! without it, and its text for people.
//!
//! Pure. A declaration in [`keys`](crate::config::keys) names one of these for each key. The code that the
//! macro `keys!` makes reads a kind with [`Read`]; `validate` reads a [`Raw`] key by hand.

#![expect(
    clippy::ref_option,
    reason = "a key is handed on as it stands, written or not"
)]

use crate::config::address;
use crate::config::choices::{PageAdminWord, WordList};
use crate::config::diagnostic::Diagnostic;
use crate::config::format::Format;
use crate::config::hash_on::HashOn;
use crate::config::key::Key;
use crate::config::scope::{Scope, Validator, Written};
use crate::config::shapes::{Maybe, Timespan};
use crate::config::show;
use crate::config::units::{self, Problem, format_duration};
use crate::config::values::PageAdmin;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How a value is written.
pub trait Kind {
    /// The field of a table's struct.
    type Field: Clone + Debug + Default + DeserializeOwned + JsonSchema;
    /// The default of a declaration: a value, or words for people.
    type Default;
    /// Its name for people.
    const WORD: &'static str;

    /// The default, as in the file or in words.
    fn default_text(default: Self::Default) -> String;
}

/// The value after validation.
pub trait Plain: Kind {
    /// A value that was written.
    type Value: Clone + Debug;
    /// The type of the model's field.
    type Meant: Clone + Debug + PartialEq;

    /// The field's value for a table with or without this value.
    fn meant(value: Option<Self::Value>, default: Self::Default) -> Self::Meant;

    /// Its text in a comparison.
    fn show(meant: &Self::Meant) -> String;
}

/// Reads and validates what was written.
pub(in crate::config) trait Read: Plain {
    /// The value. `None` when it was not written, or is not valid, which is reported.
    fn read(
        validator: &mut Validator<'_>,
        scope: Scope<'_>,
        key: &Key,
        field: &Self::Field,
    ) -> Option<Written<Self::Value>>;
}

/// Any other value; `T` is the field's type. It is read by hand.
#[derive(Debug)]
pub struct Raw<T>(PhantomData<T>);

impl<T: Clone + Debug + Default + DeserializeOwned + JsonSchema> Kind for Raw<T> {
    type Field = T;
    type Default = &'static str;
    const WORD: &'static str = "table";

    fn default_text(default: &'static str) -> String {
        default.to_owned()
    }
}

/// A value of kind `K` that the model may lack. Its default describes in words what applies then.
#[derive(Debug)]
pub struct Optional<K>(PhantomData<K>);

impl<K: Plain> Kind for Optional<K> {
    type Field = K::Field;
    type Default = &'static str;
    const WORD: &'static str = K::WORD;

    fn default_text(default: &'static str) -> String {
        default.to_owned()
    }
}

impl<K: Plain<Value = V, Meant = V> + Absent, V: Clone + Debug + PartialEq> Plain for Optional<K> {
    type Value = V;
    type Meant = Option<V>;

    fn meant(value: Option<V>, _: &'static str) -> Option<V> {
        value.filter(|value| !K::is_absent(value))
    }

    fn show(meant: &Option<V>) -> String {
        meant
            .as_ref()
            .map_or_else(|| K::ABSENT.to_owned(), |value| K::show(value))
    }
}

impl<K: Read + Plain<Value = V, Meant = V> + Absent, V: Clone + Debug + PartialEq> Read
    for Optional<K>
{
    fn read(
        validator: &mut Validator<'_>,
        scope: Scope<'_>,
        key: &Key,
        field: &K::Field,
    ) -> Option<Written<V>> {
        K::read(validator, scope, key, field)
    }
}

/// A value that may be absent. For one that is inherited there has to be a value that stands for none.
pub trait Absent: Plain {
    /// Its text in a comparison.
    const ABSENT: &'static str = show::NONE;

    /// Whether a value stands for none, where the bounds of its key allow it.
    fn is_absent(_: &Self::Value) -> bool {
        false
    }
}

/// Defines a kind: its type, how it is written, its value, its name, its default, how it is shown, and how it
/// is read.
macro_rules! kind {
    (
        $(#[doc = $doc:literal])+
        $name:ident: $written:ty => $value:ty, $word:literal, default $default:ty,
        show $show:expr, text $text:expr, make $make:expr, read $read:expr
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug)]
        pub struct $name;

        impl Kind for $name {
            type Field = Maybe<$written>;
            type Default = $default;
            const WORD: &'static str = $word;

            fn default_text(default: $default) -> String {
                let text: fn($default) -> String = $text;
                text(default)
            }
        }

        impl Plain for $name {
            type Value = $value;
            type Meant = $value;

            fn meant(value: Option<$value>, default: $default) -> $value {
                let make: fn($default) -> $value = $make;
                value.unwrap_or_else(|| make(default))
            }

            fn show(meant: &$value) -> String {
                let show: fn(&$value) -> String = $show;
                show(meant)
            }
        }

        impl Read for $name {
            fn read(
                validator: &mut Validator<'_>,
                scope: Scope<'_>,
                key: &Key,
                field: &Maybe<$written>,
            ) -> Option<Written<$value>> {
                let read: fn(
                    &mut Validator<'_>,
                    Scope<'_>,
                    &Key,
                    &Maybe<$written>,
                ) -> Option<Written<$value>> = $read;
                read(validator, scope, key, field)
            }
        }
    };
}

pub(super) use kind;

/// A duration as the default is written in the file.
fn quoted(value: Duration) -> String {
    format!("\"{}\"", format_duration(value))
}

kind! {
    /// A whole number within the bounds of its key.
    Number: i64 => u32, "number", default u32,
    show show::number, text |it| it.to_string(), make |it| it, read |validator, scope, key, field| validator.number(scope, key, field)
}

kind! {
    /// The number of a TCP port.
    Port: i64 => u16, "number", default u16,
    show show::number, text |it| it.to_string(), make |it| it,
    read |validator, scope, key, field| {
        let port = validator.number(scope, key, field)?;
        let value = u16::try_from(port.value).ok()?;
        Some(Written { value, place: port.place })
    }
}

kind! {
    /// A `priority`, within the bounds of its key. As small as it can be: there may be many servers.
    Priority: i64 => u8, "number", default u8,
    show show::number, text |it| it.to_string(), make |it| it,
    read |validator, scope, key, field| {
        let priority = validator.number(scope, key, field)?;
        let value = u8::try_from(priority.value).ok()?;
        Some(Written { value, place: priority.place })
    }
}

kind! {
    /// `true` or `false`.
    Switch: bool => bool, "switch", default bool,
    show show::bool_word, text |it| it.to_string(), make |it| it,
    read |_, scope, _, field| written(scope, field, |it| *it)
}

kind! {
    /// A duration that cannot be zero.
    Span: Timespan => Duration, "duration", default Duration,
    show show::secs, text quoted, make |it| it, read |validator, scope, key, field| validator.duration(scope, key, field)
}

kind! {
    /// A duration that may be zero.
    SpanOrZero: Timespan => Duration, "duration", default Duration,
    show show::secs, text quoted, make |it| it,
    read |_, scope, _, field| written(scope, field, |it| it.0)
}

kind! {
    /// A timeout for silence: zero switches it off, with a warning.
    IdleSpan: Timespan => Duration, "duration", default Duration,
    show show::secs, text quoted, make |it| it, read |validator, scope, key, field| validator.idle(scope, key, field)
}

kind! {
    /// A duration of whole seconds within the bounds of its key.
    Seconds: Timespan => Duration, "duration", default Duration,
    show show::secs, text quoted, make |it| it,
    read |validator, scope, key, field| seconds(validator, scope, key, field)
}

kind! {
    /// The name of a proxy, listener, server or machine.
    Name: String => Arc<str>, "name", default &'static str,
    show show::text, text |it| format!("{it:?}"), make Arc::from,
    read |validator, scope, _, field| {
        let value = validator.name(scope, field)?;
        field.as_ref().map(|text| Written { value, place: scope.of(text) })
    }
}

kind! {
    /// Any text.
    Text: String => Arc<str>, "string", default &'static str,
    show show::text, text |it| format!("{it:?}"), make Arc::from,
    read |_, scope, _, field| written(scope, field, |it| it.as_str().into())
}

kind! {
    /// A file mode, octal, in quotes.
    Mode: String => u32, "string", default u32,
    show |it| format!("{it:04o}"), text |it| format!("\"{it:04o}\""), make |it| it,
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected a file mode"), units::mode)
    }
}

kind! {
    /// Who may change servers on the page: `true`, `false` or `"localhost"`.
    AdminSwitch: PageAdminWord => PageAdmin, "switch or \"localhost\"", default PageAdmin,
    show |it| it.text().to_owned(), text |it| it.text().to_owned(), make |it| it,
    read |_, scope, _, field| written(scope, field, |it| it.0)
}

kind! {
    /// An IP address without a port.
    Ip: String => IpAddr, "IP address", default IpAddr,
    show show::number, text |it| format!("\"{it}\""), make |it| it,
    read |validator, scope, _, field| {
        let expected = ("address", "expected an address, without a port");
        parsed(validator, scope, field, expected, address::ip_alone)
    }
}

kind! {
    /// The name of a network device.
    Device: String => Arc<str>, "string", default &'static str,
    show show::text, text |it| format!("{it:?}"), make Arc::from,
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected a device as \"eth0\""), device)
    }
}

kind! {
    /// The name of a congestion control algorithm.
    Algorithm: String => Arc<str>, "string", default &'static str,
    show show::text, text |it| format!("{it:?}"), make Arc::from,
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected a name as \"bbr\""), units::algorithm)
    }
}

kind! {
    /// The same, or an empty text for none.
    AlgorithmOrNone: String => Arc<str>, "string", default &'static str,
    show show::text, text |it| format!("{it:?}"), make Arc::from,
    read |validator, scope, key, field| none_or(scope, field, || Algorithm::read(validator, scope, key, field))
}

kind! {
    /// The name of a network namespace.
    Namespace: String => Arc<str>, "string", default &'static str,
    show show::text, text |it| format!("{it:?}"), make Arc::from,
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected a name"), units::namespace)
    }
}

kind! {
    /// The same, or an empty text for none.
    NamespaceOrNone: String => Arc<str>, "string", default &'static str,
    show show::text, text |it| format!("{it:?}"), make Arc::from,
    read |validator, scope, key, field| none_or(scope, field, || Namespace::read(validator, scope, key, field))
}

kind! {
    /// One of HAProxy's expressions.
    Expression: String => HashOn, "expression", default HashOn,
    show |it| it.to_string(), text |it| format!("\"{it}\""), make |it| it,
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected an expression"), HashOn::parse)
    }
}

kind! {
    /// A format in HAProxy's notation; an empty text for none.
    FormatText: String => Format, "format", default Format,
    show |it| it.to_string(), text |it| format!("\"{it}\""), make |it| it,
    read |validator, scope, _, field| {
        parsed(validator, scope, field, ("value", "expected a format"), Format::parse)
    }
}

kind! {
    /// 0, or a number of percent above 100, within the bounds of its key.
    Factor: i64 => u32, "number", default u32,
    show show::number, text |it| it.to_string(), make |it| it,
    read |validator, scope, key, field| {
        let written = validator.number(scope, key, field)?;
        if (1..=100).contains(&written.value) {
            let message = format!("{} {} leaves too little room", key.name, written.value);
            let problem = Diagnostic::error("out-of-range", message).at(written.place);
            let problem = problem.label("expected 0, or more than 100");
            validator.report.push(problem.hint("150 is usual; 0 is no limit"));
            return None;
        }
        Some(written)
    }
}

kind! {
    /// A prime number within the bounds of its key.
    Prime: i64 => u32, "number", default u32,
    show show::number, text |it| it.to_string(), make |it| it,
    read |validator, scope, key, field| {
        let written = validator.number(scope, key, field)?;
        let next = prime_from(written.value);
        if next != written.value {
            let message = format!("{} {} is no prime number", key.name, written.value);
            let problem = Diagnostic::error("value", message).at(written.place);
            validator.report.push(problem.hint(format!("the next one is {next}")));
            return None;
        }
        Some(written)
    }
}

/// The first prime number from `number` on.
pub(in crate::config) fn prime_from(number: u32) -> u32 {
    let is_prime = |number: u32| {
        let mut divisors = (2..).take_while(|it| it * it <= number);
        number > 1 && !divisors.any(|it: u32| number.is_multiple_of(it))
    };
    (number..=u32::MAX).find(|it| is_prime(*it)).unwrap_or(2)
}

/// As in HAProxy 0 stands for no limit, or the server's port.
impl Absent for Number {
    fn is_absent(value: &u32) -> bool {
        *value == 0
    }
}

impl Absent for Port {
    fn is_absent(value: &u16) -> bool {
        *value == 0
    }
}

/// As in HAProxy.
impl Absent for Ip {
    fn is_absent(value: &IpAddr) -> bool {
        value.is_unspecified()
    }
}

impl Absent for AlgorithmOrNone {
    fn is_absent(value: &Arc<str>) -> bool {
        value.is_empty()
    }
}

impl Absent for NamespaceOrNone {
    fn is_absent(value: &Arc<str>) -> bool {
        value.is_empty()
    }
}

impl Absent for FormatText {
    fn is_absent(value: &Format) -> bool {
        value.is_empty()
    }
}

impl Absent for SpanOrZero {
    const ABSENT: &'static str = Span::ABSENT;

    fn is_absent(value: &Duration) -> bool {
        value.is_zero()
    }
}

impl Absent for Switch {}
impl Absent for Name {}
impl Absent for Text {}
impl Absent for Mode {}
impl Absent for Device {}
impl Absent for Algorithm {}
impl Absent for Namespace {}

impl Absent for IdleSpan {}
impl Absent for Span {
    const ABSENT: &'static str = "off";
}

/// A word of the list `W`.
#[derive(Debug)]
pub struct Word<W>(PhantomData<W>);

impl<W: WordList + Debug + DeserializeOwned + JsonSchema> Kind for Word<W> {
    type Field = Maybe<W>;
    type Default = W::Value;
    const WORD: &'static str = "word";

    fn default_text(default: W::Value) -> String {
        format!("\"{}\"", W::of(default).text())
    }
}

impl<W: WordList + Debug + DeserializeOwned + JsonSchema> Plain for Word<W>
where
    W::Value: Clone + Debug + PartialEq,
{
    type Value = W::Value;
    type Meant = W::Value;

    fn meant(value: Option<W::Value>, default: W::Value) -> W::Value {
        value.unwrap_or(default)
    }

    fn show(meant: &W::Value) -> String {
        W::of(meant.clone()).text().to_owned()
    }
}

impl<W: WordList + Debug + DeserializeOwned + JsonSchema> Absent for Word<W> where
    W::Value: Clone + Debug + PartialEq
{
}

impl<W: WordList + Debug + DeserializeOwned + JsonSchema> Read for Word<W>
where
    W::Value: Clone + Debug + PartialEq,
{
    fn read(
        _: &mut Validator<'_>,
        scope: Scope<'_>,
        _: &Key,
        field: &Maybe<W>,
    ) -> Option<Written<W::Value>> {
        written(scope, field, |word| word.value())
    }
}

/// The value as written, and its place.
pub(super) fn written<T, V>(
    scope: Scope<'_>,
    field: &Maybe<T>,
    value: impl FnOnce(&T) -> V,
) -> Option<Written<V>> {
    let field = field.as_ref()?;
    Some(Written {
        value: value(&field.value),
        place: scope.of(field),
    })
}

/// The result of `parse` for the text; an error is reported with `code` and `expected`.
pub(super) fn parsed<V>(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    field: &Maybe<String>,
    (code, expected): (&'static str, &str),
    parse: impl FnOnce(&str) -> Result<V, Problem>,
) -> Option<Written<V>> {
    let field = field.as_ref()?;
    let place = scope.of(field);
    match parse(&field.value) {
        Ok(value) => Some(Written { value, place }),
        Err(problem) => {
            validator.problem(place, code, expected, problem);
            None
        }
    }
}

fn seconds(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    key: &Key,
    field: &Maybe<Timespan>,
) -> Option<Written<Duration>> {
    let written = validator.duration(scope, key, field)?;
    let (_, most) = key.bounds.unwrap_or((1, i64::MAX));
    let (whole, rest) = (written.value.as_secs(), written.value.subsec_nanos());
    if rest == 0 && i64::try_from(whole).is_ok_and(|whole| whole <= most) {
        return Some(written);
    }
    let shown = format_duration(written.value);
    let message = format!("{} cannot be {shown}", key.label());
    validator.report.push(
        Diagnostic::error("out-of-range", message)
            .at(written.place)
            .label(format!("expected whole seconds, {most} at most")),
    );
    None
}

/// Longest name of a network device (`IFNAMSIZ` without the terminating zero).
const DEVICE_BYTES_MAX: usize = 15;

/// An empty text stands for none; of another one it is what `read` makes of it.
fn none_or(
    scope: Scope<'_>,
    field: &Maybe<String>,
    read: impl FnOnce() -> Option<Written<Arc<str>>>,
) -> Option<Written<Arc<str>>> {
    if field.as_ref().is_some_and(|text| text.value.is_empty()) {
        return written(scope, field, |text| text.as_str().into());
    }
    read()
}

fn device(text: &str) -> Result<Arc<str>, Problem> {
    let bad = |c: char| c == '/' || c == '\0' || c.is_whitespace();
    if (1..=DEVICE_BYTES_MAX).contains(&text.len()) && !text.contains(bad) {
        return Ok(text.into());
    }
    let problem = Problem::new(format!("`{text}` is not the name of a network device"));
    Err(problem.hint("`ip link` lists them"))
}
