//! `/api/v1/dead-letters`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::{Json as Answer, extract::State};
use http::StatusCode;

use super::{
    Api,
    auth::{SeesStrays, Tenant},
    error::Problem,
    extract::{Id, OptionalJson},
    input::ReplayBody,
    json::{DeadLetterJson, Page, ReplayCountJson},
    params::{DeadLetterParams, Params, moment, place},
    replays::counted,
};
use crate::{
    domain::outcome::Reason,
    manage::{DeadLetterFilter, DeadLetterId, check_rate},
};

/// Ids that one request may name.
const IDS_AT_MOST: usize = 1_000;
/// List dead letters, newest first
#[utoipa::path(
    get, operation_id = "list_dead_letters", path = "/api/v1/dead-letters", tag = "Dead letters", params(DeadLetterParams),
    responses((status = 200, description = "A page of dead letters", body = Page<DeadLetterJson>)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    SeesStrays(with_strays): SeesStrays,
    Params(params): Params<DeadLetterParams>,
) -> Result<Answer<Page<DeadLetterJson>>, Problem> {
    let filter = DeadLetterFilter {
        webhook: params.webhook_id.map(|id| id.0),
        event_type: params.event_type,
        since_ms: params.since.map(|moment| moment.0),
        until_ms: params.until.map(|moment| moment.0),
        reason: params.reason.map(|name| reason(&name)).transpose()?,
        ids: Vec::new(),
        with_strays,
    };
    let cursor = place(params.cursor.as_deref())?;
    let page = api.manager.dead_letters(&tenant, &filter, cursor, params.limit.0).await?;
    Ok(Answer(Page::of(page.data.iter().map(DeadLetterJson::of).collect(), page.next)))
}

/// Show a dead letter
#[utoipa::path(
    get, operation_id = "get_dead_letter", path = "/api/v1/dead-letters/{dead_letter_id}", tag = "Dead letters", params(("dead_letter_id" = String, Path)),
    responses((status = 200, description = "The dead letter", body = DeadLetterJson)),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    SeesStrays(with_strays): SeesStrays,
    Id(id): Id,
) -> Result<Answer<DeadLetterJson>, Problem> {
    let item = api.manager.dead_letter(&tenant, known(&id)?, with_strays).await?;
    Ok(Answer(DeadLetterJson::of(&item)))
}

/// Throw a dead letter away
#[utoipa::path(
    delete, operation_id = "delete_dead_letter", path = "/api/v1/dead-letters/{dead_letter_id}", tag = "Dead letters",
    params(("dead_letter_id" = String, Path)),
    responses((status = 204, description = "It is gone")),
)]
pub(super) async fn delete(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    SeesStrays(with_strays): SeesStrays,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    let filter = DeadLetterFilter { ids: vec![known(&id)?], with_strays, ..Default::default() };
    match api.manager.purge_dead_letters(&tenant, &filter, |_| ()).await? {
        0 => Err(Problem::not_found("dead letter")),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// Send a dead letter once more
#[utoipa::path(
    post, operation_id = "replay_dead_letter", path = "/api/v1/dead-letters/{dead_letter_id}/replay", tag = "Dead letters",
    params(("dead_letter_id" = String, Path)),
    responses((status = 200, description = "It is on its way", body = ReplayCountJson)),
)]
pub(super) async fn replay_one(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
) -> Result<Answer<ReplayCountJson>, Problem> {
    let filter = DeadLetterFilter { ids: vec![known(&id)?], ..Default::default() };
    match api.manager.replay_dead_letters(&tenant, &filter, None, |_| ()).await? {
        0 => Err(Problem::not_found("dead letter")),
        count => Ok(Answer(ReplayCountJson::whole(count, false))),
    }
}

/// Send dead letters once more, oldest first
///
/// Up to those that 20 seconds leave time for: `has_more` says that there are others, which the same request sends.
#[utoipa::path(
    post, operation_id = "replay_dead_letters", path = "/api/v1/dead-letters/replay", tag = "Dead letters",
    request_body(content = Option<ReplayBody>, description = "Left out: all"),
    responses((status = 200, description = "How many", body = ReplayCountJson)),
)]
pub(super) async fn replay(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    OptionalJson(body): OptionalJson<ReplayBody>,
) -> Result<Answer<ReplayCountJson>, Problem> {
    let (dry_run, rate) = (body.dry_run, check_rate(body.rate)?);
    let Some(filter) = filter(body)? else { return Ok(Answer(ReplayCountJson::whole(0, dry_run))) };
    let so_far = AtomicU64::new(0);
    let note = |count| so_far.store(count, Relaxed);
    if dry_run {
        return counted(true, &so_far, api.manager.count_replayable(&tenant, &filter, note)).await.map(Answer);
    }
    counted(false, &so_far, api.manager.replay_dead_letters(&tenant, &filter, rate, note)).await.map(Answer)
}

/// `None` for an empty list of ids, which leaves nothing.
fn filter(body: ReplayBody) -> Result<Option<DeadLetterFilter>, Problem> {
    let parse = |text: String| text.parse().map_err(|_| Problem::invalid("webhook_id", "must be a webhook's id"));
    let ids = body.ids.map(|ids| ids.iter().map(|id| dead_letter_id(id)).collect::<Result<Vec<_>, _>>()).transpose()?;
    if ids.as_ref().is_some_and(|ids| ids.len() > IDS_AT_MOST) {
        return Err(Problem::invalid("ids", format!("at most {IDS_AT_MOST} are allowed")));
    }
    if ids.as_ref().is_some_and(Vec::is_empty) {
        return Ok(None);
    }
    Ok(Some(DeadLetterFilter {
        webhook: body.webhook_id.map(parse).transpose()?,
        event_type: body.event_type,
        since_ms: body.since.map(|text| moment("since", &text)).transpose()?,
        until_ms: body.until.map(|text| moment("until", &text)).transpose()?,
        reason: body.reason.map(|name| reason(&name)).transpose()?,
        ids: ids.unwrap_or_default(),
        with_strays: false,
    }))
}

fn dead_letter_id(text: &str) -> Result<DeadLetterId, Problem> {
    text.parse().map_err(|_| Problem::invalid("ids", "must hold ids of dead letters (`dlv_…`)"))
}

/// The id in a path; one of another form is none of ours.
fn known(id: &str) -> Result<DeadLetterId, Problem> {
    id.parse().map_err(|_| Problem::not_found("dead letter"))
}

fn reason(name: &str) -> Result<Reason, Problem> {
    Reason::of_name(name).ok_or_else(|| {
        let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        Problem::invalid("reason", format!("one of {} is allowed", known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_of_ids_leaves_nothing_and_no_list_leaves_all() {
        let ids = |ids: Option<Vec<String>>| filter(ReplayBody { ids, ..Default::default() }).unwrap();
        assert_eq!(ids(None), Some(DeadLetterFilter::default()));
        assert_eq!(ids(Some(vec![])), None);
    }

    #[test]
    fn what_a_filter_does_not_know_is_refused_by_name() {
        let check = |body: ReplayBody, field: &str| {
            assert_eq!(filter(body).unwrap_err().field.as_deref(), Some(field));
        };
        let some = |text: &str| Some(text.to_owned());
        check(ReplayBody { webhook_id: some("x"), ..Default::default() }, "webhook_id");
        check(ReplayBody { since: some("x"), ..Default::default() }, "since");
        check(ReplayBody { reason: some("x"), ..Default::default() }, "reason");
        check(ReplayBody { ids: Some(vec!["x".into()]), ..Default::default() }, "ids");
        check(ReplayBody { ids: Some(vec!["x".into(); IDS_AT_MOST + 1]), ..Default::default() }, "ids");
    }
}
