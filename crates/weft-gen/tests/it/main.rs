//! Generators on tiny networks: one binary, a module a subject.

mod conditions;
mod flow;
mod golden;
mod hostile;
mod hyper;
mod refiner;
mod ridge;
mod samplers;
mod support;
mod tasks;
mod tokens;
mod trivial;
