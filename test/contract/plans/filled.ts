/** How many connections stand for a million. What a statement reads must not depend on it. */
const connectionCount = 20_000;
const clientCount = 10_000;

/** Tables that grow with the connections, or with the time that they have been there. The others have some rows, whatever there is. */
export const growing = new Set([
  "connections",
  "connection_events",
  "stored_answers",
  "unread_answers",
  "candidates",
  "held_grants",
  "device_authorizations",
  "tombstones",
  "request_limits",
  "consent_links",
  "consent_attempts",
  "authorization_requests",
  "api_keys",
  "key_uses",
  "clients",
]);

export const bigClient = "00000000-0000-4000-8000-00000000c001";
const idOf = (table: number) =>
  `('00000000-0000-4000-80' || lpad('${table}', 2, '0') || '-' || lpad(to_hex(n), 12, '0'))::uuid`;

/**
 * Rows as a large installation has them: 10,000 clients, of which one has half of the connections; tenants of 50 connections; nearly all connected and none due;
 * history, answers and remains of what was deleted for weeks. They count as foreign, since nothing is signed: each statement that is tried makes a row of its own.
 */
export const fill: readonly string[] = [
  `INSERT INTO clients (id, name, provider, client_id, scopes, connections)
   SELECT CASE n WHEN 0 THEN '${bigClient}'::uuid ELSE ${idOf(1)} END, 'client-' || n, 'provider-' || n % 40, 'id-' || n, '{}', '{*}'
   FROM generate_series(0, ${clientCount - 1}) n`,
  `INSERT INTO connections (id, name, provider, client_ref, grant_type, scopes, granted_scopes, labels, status, enabled_status, account,
     generation, version, access_token_sealed, refresh_token_sealed, refresh_fingerprint, issued_at, expires_at, authorized_at, next_refresh_at,
     in_use, created_at)
   SELECT ${idOf(2)}, 'tenant-' || n / 50 || '-' || n, 'provider-' || n % 40,
     CASE WHEN n % 2 = 0 THEN '${bigClient}'::uuid ELSE ('00000000-0000-4000-8001-' || lpad(to_hex(1 + n % ${clientCount - 1}), 12, '0'))::uuid END, 'authorization_code',
     '{read}', '{read}', jsonb_build_object('tenant', 'tenant-' || n / 50), s.status, COALESCE(NULLIF(s.status, 'disabled'), 'connected'),
     'account-' || n, 7, 7, decode(md5('a' || n), 'hex'), decode(md5('r' || n), 'hex'), decode(md5('f' || n), 'hex'),
     now() - interval '1 hour', now() + interval '1 hour', now() - interval '30 days', now() + make_interval(secs => 3600 + n % 3600), n % 2 = 0,
     now() - make_interval(mins => ${connectionCount} - n)
   FROM generate_series(1, ${connectionCount}) n,
     LATERAL (SELECT CASE n % 1000 WHEN 1 THEN 'disabled' WHEN 2 THEN 'needs_reauthorization' WHEN 3 THEN 'pending' ELSE 'connected' END AS status) s`,
  `INSERT INTO connections (id, name, provider, grant_type, scopes, granted_scopes, parent_id, chain, status, enabled_status, generation)
   SELECT ${idOf(3)}, 'tenant-' || n / 50 || '-' || n || '#second', 'provider-' || n % 40, 'authorization_code', '{}', '{}',
     ('00000000-0000-4000-8002-' || lpad(to_hex(n), 12, '0'))::uuid, 'second', 'connected', 'connected', 1
   FROM generate_series(1, ${connectionCount}, 10) n`,
  `INSERT INTO connection_events (connection_id, at, type)
   SELECT c.id, now() - make_interval(hours => h), 'refreshed' FROM generate_series(240, 24, -108) h, connections c`,
  `INSERT INTO stored_answers (attempt_id, stored_at)
   SELECT gen_random_uuid(), now() - make_interval(mins => ${connectionCount} * 3 - n) FROM generate_series(1, ${connectionCount} * 3) n`,
  `INSERT INTO unread_answers (connection_id, generation, answer_sealed, received_at)
   SELECT id, 7, '', now() - interval '1 hour' FROM connections WHERE parent_id IS NULL`,
  `INSERT INTO candidates (attempt_id, connection_id, authorization_seq, base_generation, record_sealed)
   SELECT gen_random_uuid(), id, 1, 7, '' FROM connections WHERE parent_id IS NULL`,
  `INSERT INTO held_grants (attempt_id, connection_id, generation, record_sealed, created_at)
   SELECT gen_random_uuid(), id, 7, '', now() - interval '1 minute' FROM connections WHERE parent_id IS NULL`,
  `INSERT INTO device_authorizations (connection_id, id, device_code_sealed, user_code, verification_uri, interval_s, next_poll_at, expires_at)
   SELECT id, gen_random_uuid(), '', 'code', 'https://a.example', 5, now() + interval '1 hour', now() + interval '1 hour'
   FROM connections WHERE parent_id IS NULL`,
  `INSERT INTO tombstones (name, connection_id, version, authorization_seq, provider, deleted_at)
   SELECT 'gone-' || n, gen_random_uuid(), 1, 1, 'provider-1', now() - interval '30 days' - make_interval(mins => n)
   FROM generate_series(1, ${connectionCount}) n`,
  `INSERT INTO request_limits (key, seen_by, running, keep_seconds, asked_at, wait_seconds)
   SELECT 'connection:' || id, '{}', '{}', 60, now(), 0 FROM connections WHERE parent_id IS NULL`,
  `INSERT INTO consent_links (id, connection_id, secret_hash, created_by, expires_at)
   SELECT 'link-' || name, id, '', 'key', now() - interval '60 days' FROM connections WHERE parent_id IS NULL`,
  `INSERT INTO consent_attempts (attempt_hash, browser_hash, link_id, ticket, expires_at)
   SELECT decode(md5('t' || id), 'hex'), '', id, 'ticket', now() + interval '1 hour' FROM consent_links`,
  `INSERT INTO authorization_requests (id, state_hash, connection_id, link_id, browser_hash, request_sealed, expires_at)
   SELECT gen_random_uuid(), decode(md5('s' || id), 'hex'), connection_id, id, '', '', now() + interval '1 hour' FROM consent_links`,
  `INSERT INTO api_keys (id, name, secret_hash, abilities, connections, labels, revoked_at, created_at)
   SELECT 'key-' || n, 'key ' || n, '', '{tokens}', ARRAY['tenant-' || n || '-*'], '{"tenant": "a"}',
     CASE WHEN n % 2 = 0 THEN now() - interval '10 days' END, now() - make_interval(mins => n) FROM generate_series(1, ${connectionCount}) n`,
  `INSERT INTO key_uses (key_id, last_used_at) SELECT id, now() FROM api_keys`,
  `INSERT INTO audit.entries
   SELECT now() + make_interval(secs => n), n, '11111111-1111-4111-8111-111111111111', 'key', 'key-' || n % 500, 'n',
     CASE WHEN n % 1000 = 0 THEN 'keys.create' ELSE 'tokens.read' END, 'connection', 'tenant-' || n % 400 || '-' || n, NULL, 'ok', NULL, '', ''
   FROM generate_series(-${connectionCount}, 0) n`,
  `INSERT INTO audit.open_reads (flush, minute, process, action, actor_kind, result, count, first, last)
   SELECT n, now(), gen_random_uuid(), 'tokens.read', 'key', 'ok', 1, now(), now() FROM generate_series(1, 1000) n`,
  "VACUUM ANALYZE",
];
