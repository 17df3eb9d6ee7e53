//! What is asked of a server.

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, aio::MultiplexedConnection};

use super::{
    super::scripts::Script,
    slots::{key_of, slot_of},
};

/// What is asked of a connection.
#[derive(Clone, Copy)]
pub(super) enum Work<'w> {
    Command(&'w Cmd),
    Pipeline(&'w redis::Pipeline),
    Script(&'w Script, &'w Cmd),
    Scripts(&'w Script, &'w redis::Pipeline),
}

impl Work<'_> {
    /// A key that it touches, if any; all others that it touches are in the same slot.
    pub fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Command(command) | Self::Script(_, command) => key_of(command),
            Self::Pipeline(pipeline) | Self::Scripts(_, pipeline) => pipeline.cmd_iter().find_map(key_of),
        }
    }

    /// Whether a cluster can do it on one node, which must hold on a single server too.
    pub fn is_of_one_slot(&self) -> bool {
        let Self::Pipeline(pipeline) = self else { return true };
        let mut slots = pipeline.cmd_iter().filter_map(key_of).map(slot_of);
        let first = slots.next();
        slots.all(|slot| Some(slot) == first)
    }

    pub async fn run<T: FromRedisValue>(self, connection: &mut MultiplexedConnection) -> Result<T, RedisError> {
        match self {
            Self::Command(command) => command.query_async(connection).await,
            Self::Pipeline(pipeline) => pipeline.query_async(connection).await,
            Self::Script(script, command) => match command.query_async(connection).await {
                Err(error) if is_unknown_script(&error) => {
                    load(script, connection).await?;
                    command.query_async(connection).await
                }
                answer => answer,
            },
            Self::Scripts(script, pipeline) => match pipeline.query_async(connection).await {
                Err(error) if is_unknown_script(&error) => {
                    load(script, connection).await?;
                    pipeline.query_async(connection).await
                }
                answer => answer,
            },
        }
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::NoScript))
}

async fn load(script: &Script, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    redis::cmd("SCRIPT").arg("LOAD").arg(&script.text).exec_async(connection).await
}
