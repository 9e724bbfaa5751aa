//! The integration tests: one module a subject.

#![allow(clippy::disallowed_methods, reason = "a test is at the present time")]

mod access;
mod architecture;
mod audit;
mod backpressure;
mod bad_input;
mod chaos;
mod cli_people;
mod containers;
mod controllers;
mod crash_matrix;
mod deadlines;
mod dispatch;
mod enroll;
mod events;
mod exec;
mod jobs;
mod joining;
mod labels;
mod network;
mod output;
mod people;
mod platform;
mod queue;
mod renew;
mod reports;
mod restored;
mod retry;
mod sandbox;
mod schedules;
mod statistics;
mod storage;
mod survive;
mod two_processes;
mod upgrade;
mod web;
