//! Values of the file that are one of several words. Each type reads itself with serde, describes itself for `rlb schema`,
//! and names the words in its error. Plain data.

use crate::config::script::preset::MysqlLogin;
use crate::config::script::{MatchMethod, Verdict};
use crate::config::values::{self, HashFunction, ProxyV2Options};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A type whose values are words of a list.
pub trait WordList: Copy {
    /// The meaning of a word.
    type Value;

    /// The word for `value`.
    fn of(value: Self::Value) -> Self;

    /// The meaning of this word.
    fn value(self) -> Self::Value;

    /// The word in the file.
    fn text(self) -> &'static str;
}

/// Defines a type whose values are words of a list.
macro_rules! words {
    ($(#[doc = $doc:literal])+ $name:ident($value:ty) { $($word:literal => $meaning:expr,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct $name(pub $value);

        impl WordList for $name {
            type Value = $value;

            fn of(value: $value) -> Self {
                Self(value)
            }

            fn value(self) -> $value {
                self.0
            }

            fn text(self) -> &'static str {
                match self.0 {
                    $(value if value == $meaning => $word,)+
                    _ => "?",
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct V;
                impl Visitor<'_> for V {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a word in quotes: ", words!(@list $($word)+)))
                    }

                    fn visit_str<E: Error>(self, text: &str) -> Result<$name, E> {
                        match text {
                            $($word => Ok($name($meaning)),)+
                            _ => Err(E::unknown_variant(text, &[$($word),+])),
                        }
                    }
                }
                deserializer.deserialize_str(V)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "enum": [$($word),+] })
            }
        }
    };
    (@list $first:literal $($rest:literal)*) => {
        concat!("`", $first, "`" $(, ", `", $rest, "`")*)
    };
}

words! {
    /// An algorithm that chooses a server.
    BalanceWord(values::Balance) {
        "roundrobin" => values::Balance::RoundRobin,
        "static-rr" => values::Balance::StaticRr,
        "first" => values::Balance::First,
        "random" => values::Balance::Random,
        "leastconn" => values::Balance::LeastConn,
        "source" => values::Balance::Source,
        "hash" => values::Balance::Hash,
        "maglev" => values::Balance::Maglev,
        "ewma" => values::Balance::Ewma,
    }
}

words! {
    /// Which servers a hash passes over.
    PreserveAffinityWord(values::PreserveAffinity) {
        "always" => values::PreserveAffinity::Always,
        "maxconn" => values::PreserveAffinity::MaxConn,
        "maxqueue" => values::PreserveAffinity::MaxQueue,
    }
}

words! {
    /// What of the client's address a connection to a server has: HAProxy's words.
    UseSrcWord(values::UseSrc) {
        "client" => values::UseSrc::Client,
        "clientip" => values::UseSrc::ClientIp,
    }
}

words! {
    /// How the server of a hash is found: HAProxy's words. The last ones are other words for the first of a method.
    HashTypeWord(values::HashType) {
        "map-based" => hash_type(false, HashFunction::Sdbm, false),
        "map-based sdbm avalanche" => hash_type(false, HashFunction::Sdbm, true),
        "map-based djb2" => hash_type(false, HashFunction::Djb2, false),
        "map-based djb2 avalanche" => hash_type(false, HashFunction::Djb2, true),
        "map-based wt6" => hash_type(false, HashFunction::Wt6, false),
        "map-based wt6 avalanche" => hash_type(false, HashFunction::Wt6, true),
        "map-based crc32" => hash_type(false, HashFunction::Crc32, false),
        "map-based crc32 avalanche" => hash_type(false, HashFunction::Crc32, true),
        "map-based none" => hash_type(false, HashFunction::None, false),
        "map-based none avalanche" => hash_type(false, HashFunction::None, true),
        "consistent" => hash_type(true, HashFunction::Sdbm, true),
        "consistent sdbm" => hash_type(true, HashFunction::Sdbm, false),
        "consistent djb2" => hash_type(true, HashFunction::Djb2, false),
        "consistent djb2 avalanche" => hash_type(true, HashFunction::Djb2, true),
        "consistent wt6" => hash_type(true, HashFunction::Wt6, false),
        "consistent wt6 avalanche" => hash_type(true, HashFunction::Wt6, true),
        "consistent crc32" => hash_type(true, HashFunction::Crc32, false),
        "consistent crc32 avalanche" => hash_type(true, HashFunction::Crc32, true),
        "consistent none" => hash_type(true, HashFunction::None, false),
        "consistent none avalanche" => hash_type(true, HashFunction::None, true),
        "map-based sdbm" => hash_type(false, HashFunction::Sdbm, false),
        "consistent sdbm avalanche" => hash_type(true, HashFunction::Sdbm, true),
    }
}

const fn hash_type(consistent: bool, function: HashFunction, avalanche: bool) -> values::HashType {
    values::HashType {
        consistent,
        function,
        avalanche,
    }
}

words! {
    /// What decides about a server's places on a ring.
    HashKeyWord(values::HashKey) {
        "id" => values::HashKey::Id,
        "id32" => values::HashKey::Id32,
        "addr" => values::HashKey::Addr,
        "addr-port" => values::HashKey::AddrPort,
    }
}

words! {
    /// Which clients begin with a header of the PROXY protocol.
    AcceptProxyWord(values::AcceptProxy) {
        "off" => values::AcceptProxy::Off,
        "required" => values::AcceptProxy::Required,
        "optional" => values::AcceptProxy::Optional,
    }
}

words! {
    /// What becomes of a client when no server is usable.
    NoServerWord(values::NoServer) {
        "close" => values::NoServer::Close,
        "reset" => values::NoServer::Reset,
        "stop-listening" => values::NoServer::StopListening,
    }
}

words! {
    /// With which PROXY header connections to a server begin.
    SendProxyWord(values::SendProxy) {
        "off" => values::SendProxy::Off,
        "v1" => values::SendProxy::V1,
        "v2" => values::SendProxy::V2,
    }
}

words! {
    /// What a PROXY header of version 2 has beside addresses.
    ProxyV2OptionsWord(ProxyV2Options) {
        "none" => ProxyV2Options::None,
        "crc32c" => ProxyV2Options::Crc32c,
        "unique-id" => ProxyV2Options::UniqueId,
        "crc32c,unique-id" => ProxyV2Options::Both,
    }
}

words! {
    /// The type of a health check.
    CheckType(Option<values::CheckKind>) {
        "connect" => None,
        "tcp" => Some(values::CheckKind::Tcp),
        "http" => Some(values::CheckKind::Http),
        "postgres" => Some(values::CheckKind::Postgres),
        "mysql" => Some(values::CheckKind::Mysql),
        "redis" => Some(values::CheckKind::Redis),
        "smtp" => Some(values::CheckKind::Smtp),
        "ldap" => Some(values::CheckKind::Ldap),
        "tls-hello" => Some(values::CheckKind::TlsHello),
        "kube-apiserver" => Some(values::CheckKind::KubeApiserver),
    }
}

words! {
    /// What a server is that does not want to answer.
    UnauthorizedWord(values::Unauthorized) {
        "up" => values::Unauthorized::Up,
        "down" => values::Unauthorized::Down,
    }
}

words! {
    /// Whether a certificate must be valid.
    VerifyWord(values::Verify) {
        "required" => values::Verify::Required,
        "none" => values::Verify::None,
    }
}

words! {
    /// The format of log lines.
    FormatWord(values::LogFormat) {
        "raw" => values::LogFormat::Raw,
        "rfc3164" => values::LogFormat::Rfc3164,
        "rfc5424" => values::LogFormat::Rfc5424,
    }
}

words! {
    /// A syslog severity.
    LevelWord(values::Severity) {
        "emerg" => values::Severity::Emerg,
        "alert" => values::Severity::Alert,
        "crit" => values::Severity::Crit,
        "err" => values::Severity::Err,
        "warning" => values::Severity::Warning,
        "notice" => values::Severity::Notice,
        "info" => values::Severity::Info,
        "debug" => values::Severity::Debug,
    }
}

words! {
    /// The rights of a client of the runtime socket.
    ApiLevelWord(values::ApiLevel) {
        "user" => values::ApiLevel::User,
        "operator" => values::ApiLevel::Operator,
        "admin" => values::ApiLevel::Admin,
    }
}

words! {
    /// A syslog facility, by HAProxy's names.
    FacilityWord(values::Facility) {
        "kern" => values::Facility(0),
        "user" => values::Facility(1),
        "mail" => values::Facility(2),
        "daemon" => values::Facility(3),
        "auth" => values::Facility(4),
        "syslog" => values::Facility(5),
        "lpr" => values::Facility(6),
        "news" => values::Facility(7),
        "uucp" => values::Facility(8),
        "cron" => values::Facility(9),
        "auth2" => values::Facility(10),
        "ftp" => values::Facility(11),
        "ntp" => values::Facility(12),
        "audit" => values::Facility(13),
        "alert" => values::Facility(14),
        "cron2" => values::Facility(15),
        "local0" => values::Facility(16),
        "local1" => values::Facility(17),
        "local2" => values::Facility(18),
        "local3" => values::Facility(19),
        "local4" => values::Facility(20),
        "local5" => values::Facility(21),
        "local6" => values::Facility(22),
        "local7" => values::Facility(23),
    }
}

words! {
    /// What happens to a server's sessions when it goes down.
    MarkedDown(bool) {
        "none" => false,
        "shutdown-sessions" => true,
    }
}

words! {
    /// What happens to the sessions of backup servers when a server comes up.
    MarkedUp(bool) {
        "none" => false,
        "shutdown-backup-sessions" => true,
    }
}

words! {
    /// Which failures of sessions count for a server's health.
    ObserveWord(bool) {
        "none" => false,
        "layer4" => true,
    }
}

words! {
    /// What follows from too many failed connects in a row.
    OnErrorWord(values::OnError) {
        "fastinter" => values::OnError::FastInter,
        "fail-check" => values::OnError::FailCheck,
        "sudden-death" => values::OnError::SuddenDeath,
        "mark-down" => values::OnError::MarkDown,
    }
}

words! {
    /// Where the states of servers are kept.
    StatesFromWord(values::StatesFrom) {
        "none" => values::StatesFrom::None,
        "global" => values::StatesFrom::Global,
        "local" => values::StatesFrom::Local,
    }
}

words! {
    /// How a server begins.
    InitStateWord(values::InitState) {
        "none" => values::InitState::None,
        "fully-up" => values::InitState::FullyUp,
        "up" => values::InitState::Up,
        "down" => values::InitState::Down,
        "fully-down" => values::InitState::FullyDown,
    }
}

words! {
    /// What a MySQL check says as a client: HAProxy's words.
    MysqlLoginWord(MysqlLogin) {
        "pre-41" => MysqlLogin::Before41,
        "post-41" => MysqlLogin::Since41,
        "post-80" => MysqlLogin::Since80,
    }
}

words! {
    /// The result of a check that ends with a step.
    OkStatusWord(Verdict) {
        "L7OK" => Verdict::L7Ok,
        "L7OKC" => Verdict::L7OkConditional,
        "L6OK" => Verdict::L6Ok,
        "L4OK" => Verdict::L4Ok,
    }
}

words! {
    /// The result of a check that fails at a step.
    ErrorStatusWord(Verdict) {
        "L7RSP" => Verdict::L7Response,
        "L7STS" => Verdict::L7Status,
        "L7OKC" => Verdict::L7OkConditional,
        "L6RSP" => Verdict::L6Response,
        "L4CON" => Verdict::L4Con,
    }
}

words! {
    /// The result of a check whose step gets no answer in time.
    TimeoutStatusWord(Verdict) {
        "L7TOUT" => Verdict::L7Timeout,
        "L6TOUT" => Verdict::L6Timeout,
        "L4TOUT" => Verdict::L4Timeout,
    }
}

words! {
    /// How the value of a header is compared: HAProxy's `-m`.
    HeaderMatchWord(MatchMethod) {
        "str" => MatchMethod::Same,
        "beg" => MatchMethod::Begin,
        "end" => MatchMethod::End,
        "sub" => MatchMethod::Within,
        "reg" => MatchMethod::Regex,
    }
}

/// The short forms of `check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckWord {
    /// `false`.
    Off,
    /// `true`.
    On,
    /// A type: `"tcp"`, `"http"`.
    Of(values::CheckKind),
}

impl CheckWord {
    const NAMES: [&'static str; values::CheckKind::ALL.len()] = {
        let mut names = [""; values::CheckKind::ALL.len()];
        let mut at = 0;
        while at < names.len() {
            names[at] = values::CheckKind::ALL[at].name();
            at += 1;
        }
        names
    };
}

impl<'de> Deserialize<'de> for CheckWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = CheckWord;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a type as \"tcp\"")
            }

            fn visit_bool<E: Error>(self, on: bool) -> Result<CheckWord, E> {
                Ok(if on { CheckWord::On } else { CheckWord::Off })
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<CheckWord, E> {
                const NAMES: &[&str] = &CheckWord::NAMES;
                let mut all = values::CheckKind::ALL.into_iter();
                let found = all.find(|kind| kind.name() == text);
                found
                    .map(CheckWord::Of)
                    .ok_or_else(|| E::unknown_variant(text, NAMES))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl JsonSchema for CheckWord {
    fn schema_name() -> Cow<'static, str> {
        "CheckWord".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut words = vec![serde_json::Value::from(true), false.into()];
        words.extend(Self::NAMES.map(serde_json::Value::from));
        json_schema!({ "enum": words })
    }
}

/// Who may change servers on the page: `false`, `true` or `"localhost"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageAdminWord(pub values::PageAdmin);

impl<'de> Deserialize<'de> for PageAdminWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = PageAdminWord;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or \"localhost\"")
            }

            fn visit_bool<E: Error>(self, on: bool) -> Result<PageAdminWord, E> {
                Ok(PageAdminWord(if on {
                    values::PageAdmin::Everyone
                } else {
                    values::PageAdmin::Nobody
                }))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<PageAdminWord, E> {
                match text {
                    "localhost" => Ok(PageAdminWord(values::PageAdmin::Localhost)),
                    _ => Err(E::unknown_variant(text, &["localhost"])),
                }
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl JsonSchema for PageAdminWord {
    fn schema_name() -> Cow<'static, str> {
        "PageAdminWord".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": [true, false, "localhost"] })
    }
}
