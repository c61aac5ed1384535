//! `hash`: HAProxy's choices, recorded; bounded loads.

use super::clients::client;
use super::source::{from, server};
use super::*;
use crate::live::queue::{self, SlotLimit, Wanted};
use crate::live::slot::{BackendSlot, Slot};
use crate::live::{ServerLive, WorkerToken};

/// The choices of HAProxy that `tests/it/balance_source.rs` has recorded: a line for each backend. Its words are the
/// expression, the hash type (with `_` for blanks), `hash-balance-factor`, the servers as in the other file, and the
/// positions of the servers that the [`client`]s got, a digit each. All clients stay.
const RECORDED: &str = include_str!("hash.txt");

fn hash_type(words: &str) -> HashType {
    let words: Vec<&str> = words.split('_').collect();
    let function = match words.get(1) {
        Some(&"djb2") => HashFunction::Djb2,
        Some(&"wt6") => HashFunction::Wt6,
        Some(&"crc32") => HashFunction::Crc32,
        Some(&"none") => HashFunction::None,
        _ => HashFunction::Sdbm,
    };
    HashType {
        consistent: words[0] == "consistent",
        function,
        avalanche: words == ["consistent"] || words.contains(&"avalanche"),
    }
}

/// The servers that clients get who come one after the other and stay.
fn chosen(picker: &Picker, clients: usize) -> String {
    let mut loads = [0_u32; 10];
    let mut chosen = String::new();
    for (number, sessions) in (0..).zip(1..).take(clients) {
        let mut input = from(picker, client(number));
        input.sessions = sessions;
        let found = picker.pick(&input, |it| loads[it as usize], |_| true);
        let found = found.expect("a server");
        loads[found as usize] += 1;
        chosen.extend(char::from_digit(found, 10));
    }
    chosen
}

#[test]
fn every_client_goes_to_the_server_of_haproxys() {
    let mut backends = 0;
    for line in RECORDED.lines().filter(|line| !line.starts_with('#')) {
        let [expression, words, factor, servers, theirs] = line.split(' ').collect::<Vec<_>>()[..]
        else {
            panic!("five words: {line}");
        };
        let choice = Choice {
            balance: Balance::Hash,
            hash_on: HashOn::parse(expression).expect("an expression"),
            hash_type: hash_type(words),
            hash_balance_factor: factor.parse().expect("a factor"),
            ..ROUND_ROBIN
        };
        let servers = (0..).zip(servers.split(','));
        let servers = servers.map(|(index, text)| server(index, text));
        let picker = picker(&servers.collect::<Vec<_>>(), choice);
        let ours = chosen(&picker, theirs.len());
        assert_eq!(ours, theirs, "{expression} {words} {factor}");
        backends += 1;
    }
    assert!(backends >= 20, "{backends}");
}

#[test]
fn what_has_no_value_takes_turns() {
    let choice = Choice {
        balance: Balance::Hash,
        hash_on: HashOn::parse("src,ipmask(24)").expect("an expression"),
        ..ROUND_ROBIN
    };
    let picker = picker(&candidates(&[1, 1, 1]), choice);
    let live = BackendLive::new("b".into(), 1);
    let served: Vec<_> = (0..6)
        .map(|_| {
            let client = "fd00::1".parse().expect("an address");
            let input = PickInput::new(&live, &picker, |_| Some(Value::Address(client)), now());
            picker.pick(&input, idle, |_| true)
        })
        .collect();
    assert_eq!(served, [0, 1, 2, 0, 1, 2].map(Some));
}

#[test]
fn nobody_has_much_more_than_the_share() {
    let choice = Choice {
        balance: Balance::Source,
        hash_type: hash_type("consistent"),
        hash_balance_factor: 110,
        ..ROUND_ROBIN
    };
    let bounded = picker(&candidates(&[1; 10]), choice);
    let free = Choice {
        hash_balance_factor: 0,
        ..choice
    };
    let free = picker(&candidates(&[1; 10]), free);
    let most = |picker: &Picker| {
        let chosen = chosen(picker, 2_000);
        let count = |it| chosen.chars().filter(|digit| *digit == it).count();
        ('0'..='9').map(count).max()
    };
    assert!(most(&bounded) <= Some(220) && most(&free) > Some(240));
}

#[test]
fn who_is_passed_over_by_all_waits_at_the_place_before_its_own() {
    let consistent = Choice {
        balance: Balance::Source,
        hash_type: hash_type("consistent"),
        preserve_affinity: PreserveAffinity::MaxConn,
        ..ROUND_ROBIN
    };
    let ring = picker(&candidates(&[1, 2, 1]), consistent);
    let mut waiting = [0; 3];
    for number in 0..300 {
        let input = from(&ring, client(number));
        assert_eq!(ring.affinity(&input), Some(PreserveAffinity::MaxConn));
        let mut order = Vec::new();
        ring.pick(&input, idle, |index| {
            order.push(index);
            false
        });
        let before = ring.pick_before(&input, |_| true);
        assert_eq!(before, order.last().copied());
        let other = ring.pick_before(&input, |index| Some(index) != before);
        assert_eq!(
            other,
            order.iter().rev().copied().find(|&it| Some(it) != before)
        );
        waiting[before.expect("a server") as usize] += 1;
    }
    assert!(waiting.iter().all(|count| *count > 40), "{waiting:?}");
    let map = Choice {
        hash_type: hash_type("map-based"),
        ..consistent
    };
    let map = picker(&candidates(&[1, 2, 1]), map);
    let input = from(&map, client(0));
    assert_eq!(map.affinity(&input), Some(PreserveAffinity::Always));
    assert_eq!(
        map.pick_before(&input, |_| true),
        None,
        "nobody is passed over"
    );
    assert_eq!(map.affinity(&at(0)), None, "it takes turns");
}

/// The values are those of HAProxy's own functions.
#[test]
fn the_functions_are_haproxys() {
    use hash::of_value;
    let four = Value::Address([10, 1, 2, 3].into());
    let bytes: [u8; 16] = std::array::from_fn(|at| u8::try_from(at * 7 + 1).expect("small"));
    let sixteen = Value::Address(bytes.into());
    let number = Value::Number(0x1538);
    let expected = [
        (HashFunction::Sdbm, [0xd1c4_3778, 0x9dc0_c238, 0x0015_0563]),
        (HashFunction::Djb2, [0x7c62_8fd5, 0x6e63_4b5d, 0x7bb3_4cf2]),
        (HashFunction::Wt6, [0x88e9_0af9, 0x3a75_3234, 0x1773_60a0]),
        (HashFunction::Crc32, [0xe404_6677, 0x8d71_a233, 0x7a95_81e3]),
        (HashFunction::None, [10, 108, 0x1538]),
    ];
    for (function, hashes) in expected {
        let found = [four, sixteen, number].map(|value| of_value(function, value));
        assert_eq!(found, hashes, "{function:?}");
    }
    let leading = |text: &str| of_value(HashFunction::None, Value::Address(text.parse().unwrap()));
    let found = ["2001:db8::1", "20a1::", "fd00::1", "::1", "9::"].map(leading);
    assert_eq!(found, [2001, 20, 0, 0, 9]);
}

#[test]
fn places_follow_from_the_key_of_a_server() {
    use hash::{avalanche, of_server};
    let address = |text: &str, port| Some((text.parse().expect("an address"), port));
    let bytes: [u8; 16] = std::array::from_fn(|at| u8::try_from(at * 7 + 1).expect("small"));
    let v6 = Some((bytes.into(), 80));
    assert_eq!(of_server(HashKey::Id, 7, v6), 7 * 4096);
    assert_eq!(of_server(HashKey::Id32, 7, v6), avalanche(7 << 24));
    assert_eq!(of_server(HashKey::Addr, 7, v6), 0x9113_4ed9);
    let v4 = address("10.1.2.3", 80);
    assert_eq!(of_server(HashKey::Addr, 7, v4), avalanche(0x0302_010a));
    let port = avalanche(80);
    let both = avalanche(0x0302_010a_u32.wrapping_add(port));
    assert_eq!(of_server(HashKey::AddrPort, 7, v4), both);
    assert_eq!(
        of_server(HashKey::AddrPort, 7, None),
        7 * 4096,
        "a unix socket"
    );
}

/// As in HAProxy: those that wait for a slot have no server yet.
#[test]
fn sessions_that_wait_do_not_count_for_the_share() {
    let choice = Choice {
        balance: Balance::Source,
        hash_type: hash_type("consistent"),
        hash_balance_factor: 110,
        ..ROUND_ROBIN
    };
    let bounded = picker(&candidates(&[1, 1]), choice);
    let token = WorkerToken::new(0);
    let backend = Arc::new(BackendLive::new("b".into(), 1));
    let server = Arc::new(ServerLive::new(&backend.queue, 1));
    let full = queue::Candidate {
        server: Arc::clone(&server),
        index: 0,
        limit: SlotLimit::new(1, 0, 0),
    };
    backend.queue.set_servers(vec![full], true);
    let sessions = [(); 3].map(|()| BackendSlot::take(&backend, &token));
    let slot = Slot::take(&server, &token);
    let wanted = Wanted::AnyBut(Box::default());
    let waits = backend.queue.join(wanted, None).expect("no limit");
    let client = || Value::Address([10, 0, 0, 1].into());
    let input = PickInput::new(&backend, &bounded, |_| Some(client()), now());
    assert_eq!(input.sessions, 2);
    drop((waits, slot, sessions));
}
