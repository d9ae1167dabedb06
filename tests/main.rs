//! End-to-end tests against the real programs, a file for each topic, named for what users notice.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod agent;
mod agent_process;
mod ansible;
mod as_root;
mod cli;
mod clustershell;
mod copying;
mod copying_hostile;
mod crowds;
mod documents;
mod exit_status;
mod explain;
mod floods;
mod handshake;
mod hostile_peer;
mod hostile_server;
mod inherited;
mod interactive;
mod inventory;
mod large_output;
mod lesson_pages;
mod lessons;
mod limits;
mod logs;
mod many_at_once;
mod many_hosts;
mod many_hosts_bad_input;
mod other_client;
mod other_inventories;
mod pdsh;
mod peer;
mod recipes;
mod reload;
mod rsh;
mod shutdown;
mod signals;
mod stdin;
mod streams;
mod subsystems;
mod support;
mod terminals;
mod versions;
mod wireshark;
mod wrong_port;
