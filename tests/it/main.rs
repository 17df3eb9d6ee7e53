//! The one integration test binary: a module for each thing the program does.

mod embedded;
mod post;
mod support;
