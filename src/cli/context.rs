//! What the commands share: the configuration, where to print, and an open Redis.

use tokio::task::JoinSet;

use super::{Global, output::Output};
use crate::{
    config::{self, Config},
    connect,
    logging::{self, Program},
    manage::Manager,
    publish::{Publisher, TypeChecker},
    send::post::Post,
    streams::Streams,
};

/// What a command has to work with.
pub struct Context {
    pub config: Config,
    pub out: Output,
}

impl Context {
    /// Reads the configuration and starts logging.
    ///
    /// # Errors
    /// The configuration is refused.
    pub fn new(global: &Global, program: Program) -> anyhow::Result<Self> {
        let config = Config::load(global.config.as_deref(), config::environment(), global.redis.as_deref())?;
        logging::start(&config.log, program, global.verbose);
        Ok(Self { config, out: Output::new(global.json) })
    }

    /// Opens Redis.
    ///
    /// # Errors
    /// It cannot be reached, or was set up with other settings.
    pub async fn streams(&self) -> anyhow::Result<Streams> {
        Ok(connect::open(&self.config).await?)
    }

    /// Opens Redis to manage what is in it.
    ///
    /// # Errors
    /// As [`Self::streams`].
    pub async fn manager(&self) -> anyhow::Result<Manager> {
        Ok(self.manager_of(&self.streams().await?))
    }

    /// To post to webhooks.
    ///
    /// # Errors
    /// A setting of what may be posted to is refused.
    pub fn post(&self) -> anyhow::Result<Post> {
        Ok(Post::of(&self.config, true)?)
    }

    /// To publish to an open Redis, as long as `lanes` are there.
    pub fn publisher(&self, streams: Streams, lanes: &mut JoinSet<()>) -> Publisher {
        let types = TypeChecker::new(&streams, self.config.api.strict_types);
        Publisher::start(streams, types, self.config.delivery.max_payload_bytes, lanes)
    }

    /// To manage what is in an open Redis.
    pub fn manager_of(&self, streams: &Streams) -> Manager {
        // An embedded Redis is that of a `serve`, and so is what may be posted to.
        Manager::new(streams.clone(), &self.config, self.config.address_rules(true))
    }
}
