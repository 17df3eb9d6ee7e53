//! Every route, once: by what a key needs to use it. The OpenAPI document is made from the same list.

use axum::middleware;
use utoipa::openapi::{
    ContentBuilder, Ref, RefOr, ResponseBuilder,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem},
    schema::{ObjectBuilder, Type},
    security::SecurityRequirement,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, attempts, auth, dead_letters, deliveries, event_types, events, ingest, openapi, replays, tenants, webhooks,
};
use crate::domain::access::Access;

/// What a tenant's id looks like.
const TENANT: &str = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$";

/// All routes, to describe them.
pub(super) fn all() -> OpenApiRouter<Api> {
    keyed().merge(open())
}

/// The routes that need none.
pub(super) fn open() -> OpenApiRouter<Api> {
    let mut router = OpenApiRouter::new().routes(routes!(ingest::post));
    for item in router.get_openapi_mut().paths.paths.values_mut() {
        for operation in operations(item) {
            operation.parameters.iter_mut().flatten().for_each(shape);
            refuses(operation);
        }
    }
    router
}

/// The routes that need a key.
pub(super) fn keyed() -> OpenApiRouter<Api> {
    Access::ALL.into_iter().fold(openapi::document(), |all, access| {
        let mut router = group(access);
        for item in router.get_openapi_mut().paths.paths.values_mut() {
            operations(item).for_each(|operation| describe(operation, access));
        }
        all.merge(router.route_layer(middleware::from_fn_with_state(access, auth::require)))
    })
}

fn group(access: Access) -> OpenApiRouter<Api> {
    let router = OpenApiRouter::new();
    match access {
        Access::Publish => router.routes(routes!(events::publish)).routes(routes!(events::publish_batch)),
        Access::Read => router
            .routes(routes!(events::list))
            .routes(routes!(events::show))
            .routes(routes!(events::deliveries))
            .routes(routes!(event_types::list))
            .routes(routes!(webhooks::list))
            .routes(routes!(webhooks::show))
            .routes(routes!(attempts::list))
            .routes(routes!(attempts::show))
            .routes(routes!(attempts::stats))
            .routes(routes!(deliveries::show))
            .routes(routes!(deliveries::status))
            .routes(routes!(deliveries::of_webhook))
            .routes(routes!(replays::show))
            .routes(routes!(dead_letters::list))
            .routes(routes!(dead_letters::show)),
        Access::Write => router
            .routes(routes!(event_types::create, event_types::delete_by_query))
            .routes(routes!(event_types::delete))
            .routes(routes!(webhooks::create))
            .routes(routes!(webhooks::update, webhooks::delete))
            .routes(routes!(webhooks::pause))
            .routes(routes!(webhooks::resume))
            .routes(routes!(webhooks::rotate_secret))
            .routes(routes!(attempts::test))
            .routes(routes!(replays::start))
            .routes(routes!(deliveries::resend))
            .routes(routes!(dead_letters::replay))
            .routes(routes!(dead_letters::delete))
            .routes(routes!(dead_letters::replay_one)),
        Access::Admin => router
            .routes(routes!(tenants::create, tenants::list))
            .routes(routes!(tenants::delete))
            .routes(routes!(tenants::create_key, tenants::list_keys))
            .routes(routes!(tenants::revoke_key)),
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete].into_iter().flatten()
}

/// What all routes of a kind have in common: the key, the tenant, and what a refusal looks like.
fn describe(operation: &mut Operation, access: Access) {
    operation.security = Some(vec![SecurityRequirement::new(openapi::KEY, Vec::<String>::new())]);
    let roles = format!("Roles: {}.", access.roles());
    operation.description = Some(match operation.description.take() {
        Some(text) if !text.trim().is_empty() => format!("{}\n\n{roles}", text.trim_end()),
        _ => roles,
    });
    operation.parameters.iter_mut().flatten().for_each(shape);
    if access != Access::Admin {
        let tenant = ParameterBuilder::new()
            .name("X-Tenant")
            .parameter_in(ParameterIn::Header)
            .description(Some("Whose it is, with a key that is for all tenants (else `default`); also `?tenant=`"))
            .schema(Some(text(TENANT)));
        operation.parameters.get_or_insert_default().push(RefOr::T(tenant.build()));
    }
    refuses(operation);
}

/// What a parameter in a path looks like, by its name.
fn shape(parameter: &mut RefOr<Parameter>) {
    let RefOr::T(parameter) = parameter else { return };
    let pattern = match parameter.name.as_str() {
        _ if parameter.parameter_in != ParameterIn::Path => return,
        "attempt_id" => "^att_[0-9a-v]+$",
        "dead_letter_id" => "^(dlv|bad)_[0-9a-v]+$",
        "delivery_id" => "^dlv_[0-9a-v]+$",
        "event_id" => "^evt_[0-9a-v]+$",
        "event_or_delivery_id" => "^(evt|dlv)_[0-9a-v]+$",
        "event_type" => r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$",
        "key_id" => "^key_[0-9a-v]+$",
        "replay_id" => "^[0-9a-f]+$",
        "tenant_id" => TENANT,
        "webhook_id" => "^wh_[0-9a-v]+$",
        _ => return,
    };
    parameter.schema = Some(text(pattern).into());
}

fn text(pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern))
}

/// Whatever else is answered is a problem.
fn refuses(operation: &mut Operation) {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let refused = ResponseBuilder::new().description("Refused").content("application/problem+json", problem);
    operation.responses.responses.insert("default".to_owned(), RefOr::T(refused.build()));
}
