//! What is asked of a server.

use std::collections::HashMap;

use redis::{Cmd, FromRedisValue, Pipeline, RedisError, Value, aio::MultiplexedConnection};

use super::{
    super::{
        error::any_of_server,
        scripts::{LIBRARIES, LIBRARY, Script},
    },
    slots::{key_of, slot_of},
};

/// How many versions of the library a server keeps at most: one more than this, and all go but the newest.
const LIBRARIES_AT_MOST: usize = 8;

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
        match self.ask(connection).await {
            Err(error) if says(&error, |details| details == "Function not found") => match load(connection).await? {
                Loaded::Yes => self.ask(connection).await,
                Loaded::NoRoom => self.evaluate(connection).await,
            },
            answer => answer,
        }
    }

    async fn ask<T: FromRedisValue>(self, connection: &mut MultiplexedConnection) -> Result<T, RedisError> {
        match self {
            Self::Command(command) | Self::Script(_, command) => command.query_async(connection).await,
            Self::Pipeline(pipeline) | Self::Scripts(_, pipeline) => pipeline.query_async(connection).await,
        }
    }

    /// The same without the library.
    async fn evaluate<T: FromRedisValue>(self, connection: &mut MultiplexedConnection) -> Result<T, RedisError> {
        match self {
            Self::Script(script, command) => script.evaluate(command).query_async(connection).await,
            Self::Scripts(script, pipeline) => {
                let mut evaluated = Pipeline::new();
                for command in pipeline.cmd_iter() {
                    evaluated.add_command(script.evaluate(command));
                }
                evaluated.query_async(connection).await
            }
            Self::Command(_) | Self::Pipeline(_) => self.ask(connection).await,
        }
    }
}

/// Redis has codes for few of its errors.
fn says(error: &RedisError, is_it: impl Fn(&str) -> bool) -> bool {
    any_of_server(error, |error| error.details().is_some_and(&is_it))
}

enum Loaded {
    Yes,
    /// Redis is at its memory limit: what frees memory has to run nevertheless.
    NoRoom,
}

/// Loads the library into a server, unless another has done so meanwhile.
async fn load(connection: &mut MultiplexedConnection) -> Result<Loaded, RedisError> {
    match redis::cmd("FUNCTION").arg("LOAD").arg(&LIBRARY.text).exec_async(connection).await {
        Ok(()) => {
            // Whether there is less to keep is no matter of the call.
            if let Err(error) = tidy(connection).await {
                tracing::warn!(%error, "libraries of other versions could not be deleted from Redis");
            }
        }
        Err(error) if says(&error, |details| details.ends_with("already exists")) => {}
        Err(error) if error.code() == Some("OOM") => return Ok(Loaded::NoRoom),
        Err(error) => return Err(error),
    }
    Ok(Loaded::Yes)
}

/// Deletes libraries of other versions, where there are many. A process that still uses one loads it again.
async fn tidy(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let mut list = redis::cmd("FUNCTION");
    list.arg("LIST").arg("LIBRARYNAME").arg(format!("{LIBRARIES}*"));
    let libraries: Vec<HashMap<String, Value>> = list.query_async(connection).await?;
    if libraries.len() <= LIBRARIES_AT_MOST {
        return Ok(());
    }
    for mut library in libraries {
        let name: String = redis::from_redis_value(library.remove("library_name").unwrap_or(Value::Nil))?;
        if name != LIBRARY.name {
            // Another may have deleted it already.
            match redis::cmd("FUNCTION").arg("DELETE").arg(&name).exec_async(connection).await {
                Err(error) if !says(&error, |details| details == "Library not found") => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}
