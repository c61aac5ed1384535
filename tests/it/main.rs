//! Integration tests: the real binary, seen from outside. One program, linked once; a module a
//! subject. Ports are the kernel's choice, readiness is READY=1, nothing sleeps and hopes.

mod accept;
mod balance;
mod checks;
mod cluster;
mod colours;
mod connect;
mod connect_faults;
mod dashboard;
mod demo;
mod documents;
mod files;
mod harness;
mod kernel;
mod lab;
mod limits;
mod logs;
mod packaging;
mod process;
mod relay;
mod reload;
mod reload_services;
mod runtime_access;
mod runtime_api;
mod service;
mod session_end;
mod show_sess;
mod stats;
mod timeouts;
mod unix;
mod upgrade;
mod workers;
