//! The one integration test binary: a module for each thing the program does.

mod api;
mod bench;
mod chaos;
mod cli;
mod contract;
mod crash;
mod deliver;
mod demo;
mod embedded;
mod event_types;
mod faults;
mod front_door;
mod invariants;
mod layers;
mod looking;
mod manage;
mod own_events;
mod post;
mod queue;
mod receive;
mod replay;
mod serve;
mod support;
mod tail;
mod test_send;
mod upkeep;
