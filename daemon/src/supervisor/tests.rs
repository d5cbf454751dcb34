//! The supervisor under a clock of its own.

mod failure;
mod hosts;
mod incidents;
mod restart;
mod schedule;
mod simulation;
mod tell;
