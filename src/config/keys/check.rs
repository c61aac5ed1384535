//! The keys of health checks.

use super::check_tls::{HostName, HostOrAddress, Protocols, TlsPath, TlsVersionName};
use super::check_values::{
    Headers, HttpVersion, RequestTarget, SmtpHello, Statuses, Token, UserName,
};
use super::declare::prelude::*;
use super::kinds::{Ip, Number, Optional, Port, Span, Switch, Text, Word};
use super::step::StepList;
use crate::config::choices::{
    CheckType, CheckWord, MysqlLoginWord, SendProxyWord, UnauthorizedWord, VerifyWord,
};
use crate::config::key::Effect::{HealthAnew, NextConnection};
use crate::config::key::PORT_BOUNDS;
use crate::config::script::Script;
use crate::config::shapes::{Expected, Short};
use crate::config::show::{self, secs};
use crate::config::values::SendProxy;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// Highest `rise` and `fall`.
pub const RISE_FALL_MAX: i64 = 65_535;
/// Default time between two checks.
pub(in crate::config) const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Default timeout of a check; the interval when that is shorter.
pub(in crate::config) const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// `check`: a boolean, ``"tcp"``, or a table.
pub type CheckSetting = Short<CheckWord, CheckTable>;

keys! {
    /// A health check.
    table CheckTable, "Check", "a check table";
    layer CheckLayer;
    read {
        /// The `[check.NAME]` table whose keys it has where it has none of its own.
        named: Optional<Text> = "none", name: "use", example: Some("\"redis-primary\""), reload: HealthAnew;
        /// Time between the starts of two checks.
        interval: Span = CHECK_INTERVAL, haproxy: &["inter"], reload: NextConnection;
        /// The same while the server goes down or comes up.
        fast_interval: Optional<Span> = "interval",
            haproxy: &["fastinter"], reload: NextConnection;
        /// The same while the server is down.
        down_interval: Optional<Span> = "interval",
            haproxy: &["downinter"], reload: NextConnection;
        /// How long one check may take, `interval` at most.
        timeout: Optional<Span> = "the shorter of interval and \"1s\"",
            label: Some("check timeout"), reload: NextConnection;
        /// Begin with a PROXY header, of the server's version or of the first.
        send_proxy: Optional<Switch> = "as the server, unless port or address is set",
            haproxy: &["check-send-proxy", "no-check-send-proxy"], reload: NextConnection;
        /// What it does on its connection, one table for each step, with the types `"tcp"` and `"http"`.
        steps: Optional<StepList> = "what the type does", haproxy: &["tcp-check", "http-check"],
            reload: HealthAnew;
        /// The method of its request, with the type `"http"`.
        method: Optional<Token> = "OPTIONS", reload: HealthAnew;
        /// What it asks for; an API server for `"/readyz"`.
        uri: Optional<RequestTarget> = "/", example: Some("\"/readyz\""), reload: HealthAnew;
        /// The version of HTTP that it speaks.
        version: Optional<HttpVersion> = "HTTP/1.0", example: Some("\"HTTP/1.1\""),
            reload: HealthAnew;
        /// Headers of its request: `{ Host = "www.example.org" }`.
        headers: Optional<Headers> = "none", reload: HealthAnew;
        /// The body of its request.
        body: Optional<Text> = "none", reload: HealthAnew;
        /// The status of the answer: `"200"`, `"200,204"`, `"200-299"`.
        expect_status: Optional<Statuses> = "200-399", example: Some("\"200\""), reload: HealthAnew;
        /// A server that is up and answers 404 gets no new sessions; it is not down.
        disable_on_404: Optional<Switch> = "no", haproxy: &["http-check disable-on-404"],
            reload: HealthAnew;
        /// The request has `X-Haproxy-Server-State`, which says what is known of the server.
        send_state: Optional<Switch> = "no", haproxy: &["http-check send-state"],
            reload: HealthAnew;
        /// The user that it logs in as, with the types `"postgres"` and `"mysql"`. For `"postgres"` it must be there.
        user: Optional<UserName> = "none", example: Some("\"rlb\""), reload: HealthAnew;
        /// What it says as a client of MySQL, before 4.1 or since.
        mysql_login: Optional<Word<MysqlLoginWord>> = "post-41", reload: HealthAnew;
        /// What it says to an SMTP server, with `HELO` or `EHLO`.
        hello: Optional<SmtpHello> = "HELO localhost", example: Some("\"EHLO mail.example.org\""),
            reload: HealthAnew;
        /// The file with the token that an API server is asked with, with the type `"kube-apiserver"`.
        token_file: Optional<TlsPath> = "none", example: Some("\"/etc/rlb/token\""),
            reload: HealthAnew;
        /// What an API server is that answers 401 or 403: `"up"`, or `"down"`.
        unauthorized: Optional<Word<UnauthorizedWord>> = "up", reload: HealthAnew;
        /// Its connections speak TLS, from the first byte on, whatever its type is.
        tls: Optional<Switch> = "no; yes with the type kube-apiserver", haproxy: &["check-ssl", "no-check-ssl"], reload: HealthAnew;
        /// The server's name, which a connection over TLS asks for and its certificate must have.
        sni: Optional<HostName> = "none, or the header Host of its request",
            example: Some("\"api.example.org\""), haproxy: &["check-sni"], reload: HealthAnew;
        /// The header `Host` of its request is the `sni` where there is none, if no step connects.
        sni_auto: Optional<Switch> = "yes", haproxy: &["check-sni-auto", "no-check-sni-auto"],
            reload: HealthAnew;
        /// The protocols that it offers over TLS, separated by commas.
        alpn: Optional<Protocols> = "none", example: Some("\"http/1.1\""),
            haproxy: &["check-alpn", "alpn"], reload: HealthAnew;
        /// Whether the server's certificate must be valid: `"required"`, or `"none"`.
        verify: Optional<Word<VerifyWord>> = "required", haproxy: &["verify"], reload: HealthAnew;
        /// The name or the IP address that its certificate must have where no `sni` is asked for.
        verifyhost: Optional<HostOrAddress> = "any", example: Some("\"kubernetes\""),
            haproxy: &["verifyhost", "no-verifyhost"], reload: HealthAnew;
        /// The certification authorities that are believed, in PEM; `"@system-ca"`: those of the system.
        ca_file: Optional<TlsPath> = "@system-ca", example: Some("\"/etc/kubernetes/pki/ca.crt\""),
            haproxy: &["ca-file"], reload: HealthAnew;
        /// The certificates that were revoked, in PEM: a list of each authority.
        crl_file: Optional<TlsPath> = "none", example: Some("\"/etc/rlb/crl.pem\""),
            haproxy: &["crl-file"], reload: HealthAnew;
        /// The certificate of rlb, in PEM, with those between it and the authority, and with its key.
        crt: Optional<TlsPath> = "none", example: Some("\"/etc/rlb/check.pem\""),
            haproxy: &["crt"], reload: HealthAnew;
        /// The key of that, where it is in another file than `crt` and `crt` with `.key` behind it.
        key: Optional<TlsPath> = "in crt", example: Some("\"/etc/rlb/check.key\""),
            reload: HealthAnew;
        /// The oldest version of TLS: `"TLSv1.2"`, or `"TLSv1.3"`.
        ssl_min_ver: Optional<TlsVersionName> = "TLSv1.2", haproxy: &["ssl-min-ver"],
            reload: HealthAnew;
        /// The newest.
        ssl_max_ver: Optional<TlsVersionName> = "TLSv1.3", haproxy: &["ssl-max-ver"],
            reload: HealthAnew;
    }
    meant {
        /// What is asked of the server: a connection (`"connect"`, and `"tcp"` without `steps`, in the words of `option
        /// tcp-check`), or an answer in the protocol of this name.
        kind: Word<CheckType> = None,
            name: "type",
            haproxy: &[
                "option tcp-check", "option httpchk", "option pgsql-check", "option mysql-check",
                "option redis-check", "option smtpchk", "option ldap-check",
                "option ssl-hello-chk",
            ],
            reload: NextConnection;
        /// Passed checks in a row that bring a server up.
        rise: Number = 2, bounds: Some((1, RISE_FALL_MAX)), haproxy: &["rise"],
            reload: NextConnection;
        /// Failed checks in a row that take a server down.
        fall: Number = 3, bounds: Some((1, RISE_FALL_MAX)), haproxy: &["fall"],
            reload: NextConnection;
        /// Port to check instead of the server's; 0: the server's.
        port: Optional<Port> = "the server's", bounds: Some((0, PORT_BOUNDS.1)), haproxy: &["port"],
            reload: HealthAnew;
        /// Address to check instead of the server's; `"0.0.0.0"`: the server's.
        address: Optional<Ip> = "the server's", haproxy: &["addr"], reload: HealthAnew;
    }
    /// A health check.
    #[derive(Debug, Clone, PartialEq, Eq)]
    model Check {
        /// Time between the starts of two checks; default 2 s.
        interval: Duration = CHECK_INTERVAL, CheckTable::interval => secs;
        /// The same while the server goes down or comes up; default `interval`.
        fast_interval: Duration = CHECK_INTERVAL, CheckTable::fast_interval => secs;
        /// The same while the server is down; default `interval`.
        down_interval: Duration = CHECK_INTERVAL, CheckTable::down_interval => secs;
        /// How long one check may take; default the shorter of `interval` and 1 s.
        timeout: Duration = CHECK_TIMEOUT, CheckTable::timeout => secs;
        /// The PROXY header that it begins with.
        header: SendProxy = SendProxy::Off, CheckTable::send_proxy => Word::<SendProxyWord>::show;
        /// What it asks beyond a connection; `None`: nothing.
        script: Option<Arc<Script>> = None, CheckTable::steps => script_text;
    }
}

impl Expected for CheckTable {
    const EXPECTED: &'static str =
        "a boolean, a type as \"tcp\", or a table as { interval = \"2s\", rise = 2, fall = 3 }";
}

#[expect(
    clippy::ref_option,
    reason = "it takes the field of the model as it stands"
)]
fn script_text(script: &Option<Arc<Script>>) -> String {
    show::optional(script.as_ref(), ToString::to_string)
}

impl CheckLayer {
    /// Whether it says what is asked of the server, so that what an outer table says of that has no meaning.
    pub(in crate::config) fn asks(&self) -> bool {
        self.named.is_some() || self.kind.is_some()
    }

    /// Without what is asked of the server.
    pub(in crate::config) fn without_question(self) -> Self {
        Self {
            named: None,
            kind: None,
            steps: None,
            method: None,
            uri: None,
            version: None,
            headers: None,
            body: None,
            expect_status: None,
            disable_on_404: None,
            send_state: None,
            user: None,
            mysql_login: None,
            hello: None,
            token_file: None,
            unauthorized: None,
            ..self
        }
    }
}

impl Check {
    /// The effect on a check that differs; `None` when it does not. When the target or type of the check
    /// changes, or the check is added or removed, earlier results no longer apply.
    pub(super) fn effect(old: Option<&Self>, new: Option<&Self>) -> Option<Effect> {
        match (old, new) {
            (Some(old), Some(new)) => {
                let mut found = Differences::default();
                Self::compare(old, new, &mut found);
                found.effect()
            }
            (None, None) => None,
            _ => Some(HealthAnew),
        }
    }

    /// Its text in a comparison: `connect every 2s fast 1s down 5s rise 2 fall 3 timeout 1s port 81`.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{} every {}",
            Word::<CheckType>::show(&self.kind),
            secs(&self.interval)
        );
        for (word, other) in [("fast", self.fast_interval), ("down", self.down_interval)] {
            if other != self.interval {
                let _ = write!(text, " {word} {}", secs(&other));
            }
        }
        let timeout = secs(&self.timeout);
        let _ = write!(
            text,
            " rise {} fall {} timeout {timeout}",
            self.rise, self.fall
        );
        if let Some(script) = &self.script {
            let _ = write!(text, " ({script})");
        }
        if self.header != SendProxy::Off {
            let _ = write!(
                text,
                " send-proxy {}",
                Word::<SendProxyWord>::show(&self.header)
            );
        }
        if let Some(port) = self.port {
            let _ = write!(text, " port {port}");
        }
        if let Some(address) = self.address {
            let _ = write!(text, " address {address}");
        }
        text
    }
}
