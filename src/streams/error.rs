//! What can go wrong with a call to Redis, as far as callers act on it.

use redis::{ErrorKind, RedisError, ServerError, ServerErrorKind};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call to Redis did not do its work.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Redis cannot be reached, is loading, busy, cut off or no primary: worth trying again, the call may or may not have run.
    #[error("Redis is not available: {0}")]
    Unavailable(String),
    /// Redis is at, or near, its memory limit and refuses what adds to it.
    #[error("Redis is near its memory limit: raise maxmemory, or let deliveries drain")]
    Full,
    /// A consumer group is missing: data were lost.
    #[error("a consumer group is missing: Redis lost data")]
    NoGroup,
    /// Redis refuses us for good: a permission, a password, a setting, or a defect of ours.
    #[error("Redis refused: {0}")]
    Refused(String),
    /// What came back is not what the protocol says.
    #[error("unreadable in Redis: {0}")]
    Unreadable(String),
}

impl Error {
    /// Whether the same call may succeed later without anybody doing anything.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Full | Self::NoGroup)
    }

    /// The words for metrics.
    pub const KINDS: [&str; 5] = ["unavailable", "full", "no_group", "refused", "unreadable"];

    /// The one of [`KINDS`](Self::KINDS) that it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Full => "full",
            Self::NoGroup => "no_group",
            Self::Refused(_) => "refused",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        // Of a pipeline the first failure counts.
        let of_server = error.clone().into_server_errors();
        let first = of_server.as_ref().and_then(|errors| errors.first()).map(|(_, error)| error);
        // Codes that the redis crate has no kind for, and those that a script's own calls put after "ERR".
        match first.map(redis::ServerError::code) {
            Some("OOM" | "FULL") => return Self::Full,
            Some("NOGROUP") => return Self::NoGroup,
            Some(
                "LOADING" | "BUSY" | "MISCONF" | "NOREPLICAS" | "UNBLOCKED" | "READONLY" | "MASTERDOWN" | "MOVED"
                | "ASK" | "TRYAGAIN" | "CLUSTERDOWN",
            ) => {
                return Self::Unavailable(error.to_string());
            }
            Some(_) | None => {}
        }
        // Redis has no code of its own for these.
        if first
            .and_then(redis::ServerError::details)
            .is_some_and(|detail| detail.starts_with("max number of clients") || detail.starts_with("READONLY"))
        {
            return Self::Unavailable(error.to_string());
        }
        match error.kind() {
            ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => Self::Unavailable(error.to_string()),
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask,
            ) => Self::Unavailable(error.to_string()),
            // Its text has the reply, which may be anything.
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Self::Unreadable(error.category().to_owned()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl From<redis::ParsingError> for Error {
    fn from(_: redis::ParsingError) -> Self {
        // Its text has the reply, which may be anything.
        Self::Unreadable("a reply of another form".to_owned())
    }
}

/// Whether a node of a cluster did not do it as it has not, or not now, what it is about: it has done nothing.
pub(super) fn is_astray(error: &RedisError) -> bool {
    any_of_server(error, |error| {
        matches!(error.code(), "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "READONLY")
    })
}

/// Whether a server says so, to any part of a pipeline.
pub(super) fn any_of_server(error: &RedisError, is_it: impl Fn(&ServerError) -> bool) -> bool {
    let of_server = error.clone().into_server_errors();
    of_server.iter().flat_map(|errors| errors.iter()).any(|(_, error)| is_it(error))
}

/// Whether a server did not answer, or not to the end.
pub(super) fn is_cut_off(error: &RedisError) -> bool {
    error.is_io_error()
}

/// Whether a connection that gave this error must be dropped: it is broken, or leads to what is no primary any more.
pub(super) fn spoils_connection(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || matches!(error.code(), Some("READONLY" | "MASTERDOWN"))
        || matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly))
        // A script's own write on what became a replica: "ERR READONLY You can't write against a read only replica."
        || error.detail().is_some_and(|detail| detail.starts_with("READONLY") || detail.contains("-READONLY"))
}
