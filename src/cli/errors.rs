//! Why a command failed: one sentence, and the exit code that scripts go by.

use std::io::{self, Write};

use crate::{
    config::ConfigError,
    connect::ConnectError,
    domain::Invalid,
    manage::ManageError,
    publish::PublishError,
    redis_server::StartError,
    streams::{self, OpenError},
};

/// How a command that was understood ends (2, wrong usage, is clap's).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Also when whoever reads our output has seen enough.
    Done = 0,
    Failed = 1,
    ConfigurationRefused = 64,
    RedisUnreachable = 69,
}

/// Nobody reads our standard output any more, as in `posthaste … | head`: no failure, but nothing is left to do.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub struct OutputClosed;

/// The exit code for an error: that of the first cause which has one of its own.
pub fn exit(error: &anyhow::Error) -> Exit {
    error.chain().find_map(known).unwrap_or(Exit::Failed)
}

fn known(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if cause.is::<OutputClosed>() {
        return Some(Exit::Done);
    }
    if cause.is::<ConfigError>() {
        return Some(Exit::ConfigurationRefused);
    }
    if let Some(error) = cause.downcast_ref() {
        return Some(match error {
            ConnectError::Config(_) => Exit::ConfigurationRefused,
            ConnectError::Unreachable(_) => Exit::RedisUnreachable,
            ConnectError::Redis(error) => of_redis(error),
        });
    }
    if let Some(error) = cause.downcast_ref() {
        return Some(match error {
            OpenError::OtherShards { .. } | OpenError::OtherProtocol { .. } => Exit::ConfigurationRefused,
            OpenError::Redis(error) => of_redis(error),
        });
    }
    if let Some(StartError::DataDir(_)) = cause.downcast_ref() {
        return Some(Exit::ConfigurationRefused);
    }
    if let Some(ManageError::Redis(error)) = cause.downcast_ref() {
        return Some(of_redis(error));
    }
    if let Some(PublishError::Redis(error)) = cause.downcast_ref() {
        return Some(of_redis(error));
    }
    cause.downcast_ref().map(of_redis)
}

fn of_redis(error: &streams::Error) -> Exit {
    match error {
        streams::Error::Unavailable(_) => Exit::RedisUnreachable,
        streams::Error::Full | streams::Error::NoGroup | streams::Error::Refused(_) | streams::Error::Unreadable(_) => {
            Exit::Failed
        }
    }
}

/// The error in one line. A field that was refused is called as the flag that it came by.
pub fn sentence(error: &anyhow::Error) -> String {
    match error.downcast_ref::<ManageError>() {
        Some(ManageError::Invalid(invalid)) => refused_flag(invalid),
        Some(_) | None => format!("{error:#}"),
    }
}

fn refused_flag(Invalid { field, problem }: &Invalid) -> String {
    match field.split_once('.') {
        Some((flag, part)) => format!("--{} ({part}): {problem}", flag.replace('_', "-")),
        None if *field == "headers" => format!("--header: {problem}"),
        None => format!("--{}: {problem}", field.replace('_', "-")),
    }
}

/// Writes a line to stderr. Where that is closed there is nobody left to tell.
pub fn say(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::config::Config;

    #[test]
    fn each_kind_of_failure_has_its_exit_code_whatever_is_said_around_it() {
        let check = |error: anyhow::Error, expected| {
            assert_eq!(exit(&error), expected, "{error:#}");
            assert_eq!(exit(&Err::<(), _>(error).context("while trying").unwrap_err()), expected);
        };
        let refused = || Config::load(None, [("POSTHASTE_REDIS__SHARDS".into(), "0".into())], None).unwrap_err();
        let away = || streams::Error::Unavailable("refused".into());
        check(refused().into(), Exit::ConfigurationRefused);
        check(ConnectError::Config(refused()).into(), Exit::ConfigurationRefused);
        check(ConnectError::Unreachable("no".into()).into(), Exit::RedisUnreachable);
        check(ConnectError::Redis(streams::Error::Full).into(), Exit::Failed);
        check(OpenError::OtherShards { asked: 1, stored: 2 }.into(), Exit::ConfigurationRefused);
        check(StartError::DataDir("in use".into()).into(), Exit::ConfigurationRefused);
        check(StartError::Server(anyhow::anyhow!("too old")).into(), Exit::Failed);
        check(away().into(), Exit::RedisUnreachable);
        check(OpenError::Redis(away()).into(), Exit::RedisUnreachable);
        check(ManageError::Redis(away()).into(), Exit::RedisUnreachable);
        check(PublishError::Redis(away()).into(), Exit::RedisUnreachable);
        check(ManageError::NotFound("webhook").into(), Exit::Failed);
        check(OutputClosed.into(), Exit::Done);
        check(anyhow::anyhow!("anything else"), Exit::Failed);
    }

    #[test]
    fn a_refused_field_is_named_as_its_flag() {
        let check = |field, expected: &str| {
            let error = ManageError::Invalid(Invalid::new(field, "is wrong"));
            assert_eq!(sentence(&error.into()), expected);
        };
        check("timeout_seconds", "--timeout-seconds: is wrong");
        check("headers", "--header: is wrong");
        check("retry.base_ms", "--retry (base_ms): is wrong");
        assert_eq!(sentence(&anyhow::anyhow!("inner").context("outer")), "outer: inner");
    }
}
