//! Integration tests: the real binary, from outside. One program, linked once, with a module per subject. The
//! kernel chooses ports, READY=1 means ready, no test sleeps for a fixed time.

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
mod haproxy_files;
mod harness;
mod kernel;
mod lab;
mod limits;
mod logs;
mod lost_objects;
mod packaging;
mod process;
mod relay;
mod reload;
mod reload_services;
mod runtime_access;
mod runtime_api;
mod service;
mod session_end;
mod session_orders;
mod session_timeouts;
mod show_sess;
mod stats;
mod timeouts;
mod unix;
mod upgrade;
mod workers;
