/** Every type that a line of a connection's history can have. A closed set: the OpenAPI document lists it. */
export const eventTypes = [
  "created",
  "updated",
  "disabled",
  "enabled",
  "consent_link_created",
  "consent_denied",
  "consent_failed",
  "connected",
  "reconnected",
  "imported",
  "no_refresh_token", // of the newest set; `kept`: the one from before stays, and has not worked since; `reason`: another connection sends it
  "lifetime_unreadable", // an answer stated a life that could not be read: what the definition falls back to counts; once a grant
  "token_unusable", // an access token that no header can carry: it is stored and not handed out; once a grant
  "account_found",
  "account_lookup_failed",
  "other_account_held",
  "id_token_unchecked",
  "id_token_refused",
  "other_sets_dropped",
  "set_dropped", // the other side of it, which is not told whose connection it was
  "refreshed",
  "refresh_failed",
  "probably_dead", // the same refusal, which says nothing about the grant, again and again
  "needs_reauthorization",
  "retried", // its refresh token, after it had ended, because somebody asked for it
  "retry_failed",
  "old_secret_used", // of its client, since the newest is refused
  "answer_kept", // a late answer, to be tried before the grant ends
  "candidate_tried",
  "late_answer_stored",
  "came_along", // a further token, with a refresh of its connection
  "held_after_restore",
  "released_after_restore",
] as const;

export type EventType = (typeof eventTypes)[number];
