//! `source` and `static-rr`: HAProxy's choices, recorded, and who moves when servers come and go.

use super::clients::client;
use super::*;
use proptest::prelude::*;
use std::net::IpAddr;

/// The choices of HAProxy that `tests/it/balance_source.rs` has recorded: a line for each backend. Its words are the hash
/// type (with `_` for blanks), the servers as `ID*WEIGHT`, with `b` for a backup and then `!` for one that is down, and
/// the positions of the servers that the [`client`]s got, a digit each.
const RECORDED: &str = include_str!("source.txt");

const fn hash_type(consistent: bool, avalanche: bool) -> HashType {
    HashType {
        consistent,
        function: HashFunction::Sdbm,
        avalanche,
    }
}

const HASH_TYPES: [HashType; 4] = [
    hash_type(false, false),
    hash_type(false, true),
    hash_type(true, false),
    hash_type(true, true),
];

fn source(hash_type: HashType) -> Choice {
    Choice {
        balance: Balance::Source,
        hash_type,
        ..ROUND_ROBIN
    }
}

pub(super) fn server(index: u32, text: &str) -> Candidate {
    let usable = !text.ends_with('!');
    let text = text.trim_end_matches('!');
    let backup = text.ends_with('b');
    let (id, weight) = text
        .trim_end_matches('b')
        .split_once('*')
        .expect("ID*WEIGHT");
    let weight = weight.parse().expect("a weight");
    let id = id.parse().expect("an id");
    Candidate {
        index,
        id,
        key: hash::of_server(HashKey::Id, id, None),
        name: 0,
        weight,
        eweight: 16 * weight,
        written: weight,
        priority: 0,
        backup,
        usable,
        down: false,
    }
}

#[test]
fn every_client_goes_to_the_server_of_haproxys() {
    let mut backends = 0;
    for line in RECORDED.lines().filter(|line| !line.starts_with('#')) {
        let [name, servers, chosen] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("three words: {line}");
        };
        let name = name.replace('_', " ");
        let hash_type = HASH_TYPES.into_iter().find(|it| it.name() == name);
        let servers: Vec<Candidate> = (0..)
            .zip(servers.split(','))
            .map(|(index, text)| server(index, text))
            .collect();
        let picker = picker(&servers, source(hash_type.expect("a hash type")));
        let found: String = (0..)
            .zip(chosen.chars())
            .filter_map(|(number, _)| picker.pick(&from(&picker, client(number)), idle, |_| true))
            .filter_map(|index| char::from_digit(index, 10))
            .collect();
        assert_eq!(found, chosen, "{name} {servers:?}");
        backends += 1;
    }
    assert!(backends >= 16, "{backends}");
}

#[test]
fn a_client_without_an_address_takes_turns() {
    for hash_type in HASH_TYPES {
        let picker = picker(&candidates(&[1, 1, 1]), source(hash_type));
        let mut served = picks(&picker, &AtomicUsize::new(0), 48);
        served.sort_unstable();
        assert_eq!(
            served,
            [[0; 16], [1; 16], [2; 16]].concat(),
            "{hash_type:?}"
        );
    }
}

#[test]
fn servers_that_are_down_keep_the_length_of_the_map() {
    let all = candidates(&[2, 4, 3]);
    let map = Map::new(&all[..2], &all);
    assert_eq!(map.slots(), [0, 1, 1, 0, 1, 1], "six slots, not three");
}

/// The input of a session from this address.
pub(super) fn from(picker: &Picker, client: IpAddr) -> PickInput {
    let live = BackendLive::new("b".into(), 1);
    PickInput::new(&live, picker, |_| Some(Value::Address(client)), now())
}

proptest! {
    #[test]
    fn every_server_has_its_share_of_the_map(weights in prop::collection::vec(1u32..=64, 1..12)) {
        let all = candidates(&weights);
        let map = Map::new(&all, &all);
        let sum: u32 = weights.iter().sum();
        let unit = sum as usize / map.slots().len();
        for (index, weight) in (0..).zip(weights) {
            let slots = map.slots().iter().filter(|&&slot| slot == index).count();
            prop_assert_eq!(slots * unit, weight as usize);
        }
    }

    #[test]
    fn a_server_that_leaves_a_ring_moves_its_own_clients_alone(
        weights in prop::collection::vec(1u32..=8, 2..12), gone in 0usize..12
    ) {
        let mut all = candidates(&weights);
        let gone = gone % all.len();
        let hash_type = hash_type(true, true);
        let before = picker(&all, source(hash_type));
        all[gone].usable = false;
        let after = picker(&all, source(hash_type));
        for number in 0..500 {
            let of = |it: &Picker| it.pick(&from(it, client(number)), idle, |_| true);
            let (old, new) = (of(&before), of(&after));
            let stays = old.is_some_and(|old| old as usize != gone);
            prop_assert!(!stays || old == new, "{} {:?} {:?}", number, old, new);
            prop_assert!(new.is_some_and(|new| new as usize != gone));
        }
    }
}
