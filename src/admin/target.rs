//! Parses the target of a request, by HAProxy's grammar of its statistics URI. Pure.
//!
//! The configured `uri` is a prefix: everything that begins with it is the page, and options follow a `;` (or a
//! `?` or `&`) anywhere after it. Unknown options are ignored. `/metrics`, `/healthz` and `/readyz` do not
//! depend on it. Of a whole URL (`http://host/path`), as clients of a proxy ask, a `uri` that is a path is
//! compared with the path, any other one with all of it.

use crate::config::model::StatsPage;
use crate::stats::filter::SCOPE_BYTES_MAX;
use crate::stats::metrics::Select;
use crate::stats::page::{ActionResult, View};
use crate::stats::{Filter, Format};
use hyper::Method;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resource {
    /// The page.
    Page,
    /// `;csv`, `;typed`, `;json`
    Table(Format),
    /// `;json-schema`
    Schema,
    /// `/metrics`
    Metrics(Select),
    /// `/healthz`
    Health,
    /// `/readyz`
    Ready,
    /// `/metrics` with an unknown scope or an invalid query.
    BadRequest,
    /// No such page.
    NotFound,
    /// An action on servers: POST to the page.
    Action,
    /// Neither GET nor HEAD, nor POST to the page.
    MethodNotAllowed,
}

impl Resource {
    /// Whether it needs a password if one is configured: all except `/healthz` and `/readyz`.
    pub(super) fn is_guarded(&self) -> bool {
        !matches!(self, Self::Health | Self::Ready)
    }

    /// Whether the answer may make a browser refresh.
    pub(super) fn is_of_the_page(&self) -> bool {
        matches!(
            self,
            Self::Page | Self::Table(_) | Self::Schema | Self::Action
        )
    }
}

/// Path and query of a target that may be a whole URL.
fn of_path(target: &str) -> &str {
    let Some((_, host)) = target
        .split_once("://")
        .filter(|_| !target.starts_with('/'))
    else {
        return target;
    };
    host.find(['/', '?']).map_or("/", |begin| &host[begin..])
}

/// The resource and the view that `method` on `target` (path and query, or a whole URL) asks for.
pub(super) fn parse(method: &Method, target: &str, page: &StatsPage) -> (Resource, View) {
    let mut view = View {
        filter: Filter {
            only: page.scope.clone(),
            ..Filter::default()
        },
        uri: page.uri.clone(),
        refreshable: page.refresh.is_some(),
        refreshing: page.refresh.is_some(),
        hide_version: page.hide_version,
        show_node: page.show_node,
        description: page.description.clone(),
        legends: page.legends,
        admin: false,
        result: None,
    };
    let posts = method == Method::POST;
    if method != Method::GET && method != Method::HEAD && !posts {
        return (Resource::MethodNotAllowed, view);
    }
    let whole = target;
    let target = of_path(whole);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match path {
        "/metrics" | "/healthz" | "/readyz" if posts => return (Resource::MethodNotAllowed, view),
        "/metrics" => {
            let metrics = Select::of(query).map(|select| select.within(&page.scope));
            let metrics = metrics.map(Resource::Metrics);
            return (metrics.unwrap_or(Resource::BadRequest), view);
        }
        "/healthz" => return (Resource::Health, view),
        "/readyz" => return (Resource::Ready, view),
        _ => {}
    }
    let compared = if page.uri.starts_with('/') {
        target
    } else {
        whole
    };
    let Some(options) = compared.strip_prefix(&*page.uri) else {
        let other = if posts {
            Resource::MethodNotAllowed
        } else {
            Resource::NotFound
        };
        return (other, view);
    };
    let mut resource = Resource::Page;
    for option in options.split([';', '?', '&']).skip(1) {
        match option {
            "csv" => resource = Resource::Table(Format::Csv),
            "typed" => resource = Resource::Table(Format::Typed),
            "json" => resource = Resource::Table(Format::Json),
            "json-schema" => resource = Resource::Schema,
            "up" => view.filter.up = true,
            "no-maint" => view.filter.no_maint = true,
            "problems" => view.filter.problems = true,
            "norefresh" => view.refreshing = false,
            _ => {
                if let Some(scope) = option.strip_prefix("scope=") {
                    view.filter.scope = scope_of(scope);
                } else if let Some(code) = option.strip_prefix("st=") {
                    view.result = view.result.or_else(|| ActionResult::parse(code));
                }
            }
        }
    }
    if posts {
        resource = Resource::Action;
    }
    (resource, view)
}

/// The decoded text of `scope=`; `None` if it is empty.
fn scope_of(encoded: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = encoded.as_bytes();
    while let [byte, after @ ..] = rest
        && bytes.len() < SCOPE_BYTES_MAX
    {
        let (byte, after) = match (byte, hex(after)) {
            (b'%', Some(byte)) => (byte, &after[2..]),
            (b'+', _) => (b' ', after),
            (other, _) => (*other, after),
        };
        bytes.push(byte);
        rest = after;
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (!text.is_empty()).then_some(text)
}

/// The byte of two hexadecimal digits.
fn hex(text: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(text.get(..2)?).ok()?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn resource(target: &str, uri: &str) -> Resource {
        let page = StatsPage {
            uri: uri.into(),
            ..StatsPage::default()
        };
        parse(&Method::GET, target, &page).0
    }

    #[test]
    fn the_grammar_is_haproxys() {
        let csv = Resource::Table(Format::Csv);
        for target in [
            "/;csv",
            "/;csv;norefresh",
            "/;norefresh;csv",
            "/stats;csv",
            "/haproxy?stats;csv",
            "/;csv?x=1",
            "/;csv&scope=a",
            "/?;csv",
        ] {
            assert_eq!(resource(target, "/"), csv, "{target}");
        }
        for target in [
            "/",
            "/nosuch",
            "/;norefresh",
            "/;nosuch",
            "/?x=;",
            "/;csvx",
            "/healthz/",
        ] {
            assert_eq!(resource(target, "/"), Resource::Page, "{target}");
        }
        assert_eq!(resource("/;typed", "/"), Resource::Table(Format::Typed));
        assert_eq!(resource("/;json", "/"), Resource::Table(Format::Json));
        assert_eq!(resource("/;json-schema", "/"), Resource::Schema);
        for target in ["", "*", "csv"] {
            assert_eq!(resource(target, "/"), Resource::NotFound, "{target}");
        }
        let with = |method, target: &str| parse(&method, target, &StatsPage::default()).0;
        for target in ["/", "/;csv", "/nosuch", "/;st=DONE;up"] {
            assert_eq!(with(Method::POST, target), Resource::Action, "{target}");
            assert_eq!(with(Method::PUT, target), Resource::MethodNotAllowed);
        }
        for target in ["/metrics", "/healthz", "/readyz", "*"] {
            let refused = with(Method::POST, target);
            assert_eq!(refused, Resource::MethodNotAllowed, "{target}");
        }
    }

    #[test]
    fn a_whole_url_is_compared_with_a_whole_uri() {
        let uri = "http://stats/";
        let csv = Resource::Table(Format::Csv);
        assert_eq!(resource("http://stats/", uri), Resource::Page);
        assert_eq!(resource("http://stats/a;csv", uri), csv);
        for target in ["/", "http://other/", "https://stats/", "/http://stats/"] {
            assert_eq!(resource(target, uri), Resource::NotFound, "{target}");
        }
        assert_eq!(resource("http://stats/healthz", uri), Resource::Health);
        assert_eq!(resource("http://stats/s;csv", "/s"), csv);
        assert_eq!(resource("http://stats", "/"), Resource::Page);
        assert_eq!(resource("http://stats/", "/s"), Resource::NotFound);
        assert_eq!(resource("/s?://x/", "/s"), Resource::Page);
    }

    #[test]
    fn the_uri_is_a_prefix_and_three_paths_do_not_depend_on_it() {
        let uri = "/haproxy?stats";
        assert_eq!(
            resource("/haproxy?stats;csv", uri),
            Resource::Table(Format::Csv)
        );
        assert_eq!(resource("/haproxy?stats=&scope=a", uri), Resource::Page);
        for target in [
            "/",
            "/haproxy",
            "/haproxy?x",
            "/../haproxy?stats",
            "/%2e%2e/etc/passwd",
        ] {
            assert_eq!(resource(target, uri), Resource::NotFound, "{target}");
        }
        assert_eq!(resource("/healthz?probe=1", uri), Resource::Health);
        assert_eq!(resource("/readyz", uri), Resource::Ready);
        assert!(matches!(
            resource("/metrics?no-maint", uri),
            Resource::Metrics(_)
        ));
    }

    #[test]
    fn the_scope_of_a_page_is_that_of_its_metrics() {
        let page = StatsPage {
            scope: vec!["web".into()],
            ..StatsPage::default()
        };
        let (resource, _) = parse(&Method::GET, "/metrics?scope=server", &page);
        let select = Select::of("scope=server").expect("it is valid");
        let all = Resource::Metrics(select.clone());
        assert_ne!(resource, all);
        assert_eq!(resource, Resource::Metrics(select.within(&page.scope)));
    }

    #[test]
    fn options_are_found_anywhere() {
        let page = StatsPage {
            refresh: Some(Duration::from_secs(10)),
            ..StatsPage::default()
        };
        let view = |target: &str| parse(&Method::GET, target, &page).1;
        assert!(view("/").refreshing && !view("/;csv;norefresh").refreshing);
        assert!(view("/;up;csv").filter.up && view("/;csv;no-maint").filter.no_maint);
        let scope = |target: &str| view(target).filter.scope;
        assert_eq!(scope("/?scope=post"), Some("post".into()));
        assert_eq!(scope("/;csv;scope=a%2Fb+c%zz%"), Some("a/b c%zz%".into()));
        assert_eq!(
            view("/;st=PART;up;st=DONE").result,
            Some(ActionResult::Part)
        );
        assert_eq!(view("/;st=x").result, None);
        assert_eq!(scope("/;scope="), None);
        let long = scope(&format!("/;scope={}", "x".repeat(100)));
        assert_eq!(long.map(|text| text.len()), Some(SCOPE_BYTES_MAX));
    }
}
