//! The whole program: the real binary between real sockets, on both drivers. A module for each
//! part of the contract, a test for each scenario.

#![expect(
    clippy::unwrap_used,
    reason = "a panic is how a test fails, in its helpers too"
)]

mod absent;
mod access;
mod balancing;
mod begun;
mod bodies;
mod bounds;
mod cache_salt;
mod catalogue;
mod commands;
mod cors;
mod counting;
mod demo;
mod descriptors;
mod dialects;
mod dry_run;
mod early;
mod errors;
mod explanations;
mod failover;
mod headers;
mod health;
mod issuer;
mod keyed_streams;
mod killers;
mod leaving;
mod life;
mod loading;
mod loops;
mod malformed;
mod messages;
mod ollama;
mod operator;
mod pages;
mod paths;
mod queue;
mod queue_pages;
mod queue_starts;
mod queued;
mod quotas;
mod rates;
mod readings;
mod reloads;
mod requests;
mod responses;
mod retry;
mod root;
mod sessions;
mod slots;
mod soak;
mod state;
mod streams;
mod tokens;
mod translations;
mod vectors;
mod waiting;
