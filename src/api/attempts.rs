//! `/api/v1/webhooks/{id}/logs`: the attempts of a webhook.

use axum::{Json as Answer, extract::State};

use super::{
    Api,
    auth::Tenant,
    error::Problem,
    extract::{Id, Query},
    json::{AttemptJson, Page},
};
use crate::{
    domain::id::{EventId, StreamId},
    streams::AttemptFilter,
};

pub(super) async fn list(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
    mut query: Query,
) -> Result<Answer<Page<AttemptJson>>, Problem> {
    let filter = AttemptFilter {
        is_success: query.take("status").map(|status| is_success(&status)).transpose()?,
        event_type: query.take("type"),
        since_ms: query.moment("since")?,
        until_ms: query.moment("until")?,
    };
    let event: Option<EventId> = query.parsed("event_id", "must be an event's id (`evt_…`)")?;
    let (limit, before) = (query.limit()?, query.cursor::<StreamId>()?);
    query.finish()?;
    let page = match event {
        None => api.manager.attempts(&tenant, &id, &filter, before, limit).await?,
        Some(event) => api.manager.attempts_for_event(&tenant, &id, event, &filter, before, limit).await?,
    };
    Ok(Answer(Page {
        data: page.attempts.iter().map(|(id, attempt)| AttemptJson::of(*id, attempt)).collect(),
        next_cursor: page.before.map(|before| before.to_string()),
    }))
}

fn is_success(status: &str) -> Result<bool, Problem> {
    match status {
        "success" => Ok(true),
        "failed" => Ok(false),
        _ => Err(Problem::invalid("status", "`success` or `failed` is allowed")),
    }
}
