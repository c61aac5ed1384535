//! How long a configuration takes to load: the seed's, and one with a thousand backends.

use criterion::{Criterion, criterion_group, criterion_main};
use rlb::config::{Limits, Loader};
use std::fmt::Write;
use std::hint::black_box;

fn large() -> String {
    let mut text = String::from("[node-group.all]\n");
    for node in 0..10 {
        writeln!(text, "node{node} = '10.0.0.{node}'").expect("a string");
    }
    for index in 0..1000 {
        let port = 10_000 + index;
        writeln!(
            text,
            "[[listen]]\nname = 'service{index}'\nbind = '*:{port}'\ncheck = true\n\
             nodes = 'all'\nport = {port}"
        )
        .expect("a string");
    }
    text
}

fn parse(criterion: &mut Criterion) {
    let limits = Limits {
        nofile: Some(20_000),
        somaxconn: Some(4096),
        cores: 2,
        net_admin: true,
    };
    let loader = Loader {
        limits,
        environment: &|_| None,
        disk: false,
    };
    let large = large();
    for (name, text) in [
        ("seed", include_str!("../config/kurl-ha.toml")),
        ("thousand", &large),
    ] {
        criterion.bench_function(&format!("parse/{name}"), |bencher| {
            bencher.iter(|| {
                loader
                    .load_text("rlb.toml", black_box(text))
                    .expect("it is valid")
            });
        });
    }
}

criterion_group!(benches, parse);
criterion_main!(benches);
