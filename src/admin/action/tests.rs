//! What an action changes, for whom, and how a body is read.

use super::*;
use crate::live::ServerLive;
use crate::state::test_config;
use crate::stats::test_snapshot::{config, snapshot};
use hyper::body::Frame;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

fn server(admin: AdminState) -> Server {
    let live = Arc::new(ServerLive::new(&Arc::default(), 1));
    let mut server = Server::new(test_config::server("s1"), live, Instant::now());
    server.status.admin = admin;
    server
}

/// What `action` changes on `server`: `none`, `already`, or the message.
fn made(action: Action, server: &Server, check: Option<&Check>) -> String {
    let change = change(action, server, check);
    match change {
        Change::None => "none".to_owned(),
        Change::Already => "already".to_owned(),
        Change::Made(message) => match message(oneshot::channel().0) {
            ToControl::SetAdmin {
                server: uid, to, ..
            } if uid == server.live.uid => format!("{to:?}"),
            ToControl::Change { change, .. } => match change {
                RuntimeChange::Health(uid, to, Interface::Web) if uid == server.live.uid => {
                    format!("{to:?}")
                }
                RuntimeChange::Check(uid, to) if uid == server.live.uid => {
                    format!("check {}", to.is_some())
                }
                other => panic!("{other:?}"),
            },
            ToControl::KillSessions { server: uid, .. } if uid == server.live.uid => {
                "kill".to_owned()
            }
            other => panic!("{other:?}"),
        },
    }
}

/// What changes nothing is not counted, as in HAProxy; its old actions depend on what is set.
#[test]
fn each_action_is_haproxys() {
    let (ready, maint, drain) = (AdminState::READY, AdminState::FMAINT, AdminState::FDRAIN);
    let both = maint.with(drain);
    for (action, admin, expected) in [
        (Action::Ready, maint, "Ready"),
        (Action::Ready, ready, "Ready"),
        (Action::Drain, drain, "Drain"),
        (Action::Maint, maint, "Maint"),
        (Action::Disable, ready, "AddMaint"),
        (Action::Disable, maint, "none"),
        (Action::Enable, both, "EndMaint"),
        (Action::Enable, drain, "none"),
        (Action::Stop, maint, "AddDrain"),
        (Action::Stop, both, "none"),
        (Action::Start, both, "EndDrain"),
        (Action::Start, maint, "none"),
        (Action::ForceUp, ready, "Up"),
        (Action::ForceNolb, ready, "Stopping"),
        (Action::ForceDown, ready, "Down"),
        (Action::Agent, ready, "none"),
        (Action::Shutdown, maint, "kill"),
        (Action::DisableChecks, ready, "none"),
        (Action::EnableChecks, ready, "none"),
    ] {
        let found = made(action, &server(admin), None);
        assert_eq!(found, expected, "{action:?} {admin:?}");
    }
    let mut server = server(ready);
    let check = server.spec.check.clone().expect("it is checked");
    let off = made(Action::DisableChecks, &server, Some(&check));
    assert_eq!(off, "check false");
    let on = made(Action::EnableChecks, &server, Some(&check));
    assert_eq!(on, "already");
    server.set_check(None);
    let on = made(Action::EnableChecks, &server, Some(&check));
    assert_eq!(on, "check true");
}

#[test]
fn the_result_depends_on_what_was_done_and_what_was_not() {
    for (done, missing, lost, expected) in [
        (0, 0, 0, ActionResult::Nothing),
        (2, 0, 0, ActionResult::Done),
        (0, 1, 0, ActionResult::BadParameter),
        (1, 1, 0, ActionResult::Part),
        (1, 0, 1, ActionResult::Part),
    ] {
        let counts = Counts {
            done,
            missing,
            lost,
        };
        assert_eq!(counts.result(), expected, "{counts:?}");
    }
}

#[test]
fn a_form_names_what_the_page_shows() {
    let mut config = config(1);
    let of = |config: &crate::config::model::Config, name: &str| {
        let snapshot = snapshot(config);
        let page = &config.stats.as_ref().unwrap().page;
        backend(&snapshot, page, name).map(|found| found.map(|it| it.spec.name.to_string()))
    };
    for name in ["postgres", "#3"] {
        assert_eq!(of(&config, name), Ok(Some("postgres".into())), "{name}");
    }
    for name in ["stats", "#2"] {
        assert_eq!(of(&config, name), Ok(None), "{name}");
    }
    for name in ["", "nosuch", "#9", "#"] {
        assert_eq!(of(&config, name), Err(ActionResult::BadParameter), "{name}");
    }
    config.stats.as_mut().unwrap().page.scope = vec!["stats".into()];
    for name in ["postgres", "#3", "nosuch", ""] {
        assert_eq!(of(&config, name), Err(ActionResult::Denied), "{name}");
    }
    assert_eq!(of(&config, "stats"), Ok(None));
}

#[test]
fn a_client_of_this_machine_is_one_by_its_address() {
    let at = |admin, address: &str| {
        let page = StatsPage {
            admin,
            ..StatsPage::default()
        };
        is_admin(&page, Some(address.parse().unwrap()))
    };
    for (address, local) in [
        ("127.0.0.1:1", true),
        ("127.1.2.3:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("10.0.0.1:1", false),
        ("[::ffff:10.0.0.1]:1", false),
        ("[2001:db8::1]:1", false),
    ] {
        assert_eq!(at(PageAdmin::Localhost, address), local, "{address}");
        assert!(at(PageAdmin::Everyone, address) && !at(PageAdmin::Nobody, address));
    }
    let page = StatsPage {
        admin: PageAdmin::Localhost,
        ..StatsPage::default()
    };
    assert!(!is_admin(&page, None), "a client that has gone");
}

/// A body in these pieces.
struct Pieces(VecDeque<usize>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.0.pop_front();
        Poll::Ready(piece.map(|length| Ok(Frame::data(vec![b'x'; length].into()))))
    }
}

#[test]
fn a_body_is_read_up_to_haproxys_buffer() {
    for (pieces, length) in [
        (&[][..], Some(0)),
        (&[3, 0, 4], Some(7)),
        (&[BODY_BYTES_MAX], Some(BODY_BYTES_MAX)),
        (&[BODY_BYTES_MAX - 1, 1], Some(BODY_BYTES_MAX)),
        (&[BODY_BYTES_MAX, 1], None),
        (&[BODY_BYTES_MAX + 1], None),
    ] {
        let mut reading = pin!(read(Pieces(pieces.iter().copied().collect())));
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(result) = reading.as_mut().poll(&mut context) else {
            panic!("a body that is there is read at once");
        };
        let expected = length.ok_or(Ended::Result(ActionResult::TooLarge, false));
        assert_eq!(result.map(|body| body.len()), expected, "{pieces:?}");
    }
}
