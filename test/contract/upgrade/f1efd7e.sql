SET check_function_bodies = false;

CREATE TABLE public._prisma_migrations (
    id character varying(36) NOT NULL,
    checksum character varying(64) NOT NULL,
    finished_at timestamp with time zone,
    migration_name character varying(255) NOT NULL,
    logs text,
    rolled_back_at timestamp with time zone,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    applied_steps_count integer DEFAULT 0 NOT NULL
);

CREATE TABLE public.api_keys (
    id text NOT NULL,
    name text NOT NULL,
    secret_hash bytea NOT NULL,
    abilities text[],
    connections text[],
    expires_at timestamp(3) with time zone,
    revoked_at timestamp(3) with time zone,
    created_at timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL
);

CREATE TABLE public.authorization_requests (
    id uuid NOT NULL,
    state_hash bytea NOT NULL,
    connection_id uuid NOT NULL,
    link_id text NOT NULL,
    browser_hash bytea NOT NULL,
    verifier_sealed bytea,
    redirect_uri text,
    expires_at timestamp(3) with time zone NOT NULL,
    created_at timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL
);

CREATE TABLE public.candidates (
    attempt_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    authorization_seq integer NOT NULL,
    base_generation integer NOT NULL,
    record_sealed bytea NOT NULL,
    created_at timestamp(3) with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE public.clients (
    id uuid NOT NULL,
    name text NOT NULL,
    provider text NOT NULL,
    client_id text NOT NULL,
    secret_revision integer DEFAULT 0 NOT NULL,
    secret_sealed bytea,
    previous_secret_sealed bytea,
    scopes text[],
    inputs jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL
);

CREATE TABLE public.connection_events (
    id bigint NOT NULL,
    connection_id uuid NOT NULL,
    at timestamp(3) with time zone DEFAULT clock_timestamp() NOT NULL,
    type text NOT NULL,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL
);

CREATE SEQUENCE public.connection_events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.connection_events_id_seq OWNED BY public.connection_events.id;

CREATE TABLE public.connections (
    id uuid NOT NULL,
    name text NOT NULL,
    provider text NOT NULL,
    client_ref uuid,
    grant_type text NOT NULL,
    status text DEFAULT 'pending'::text NOT NULL,
    enabled_status text DEFAULT 'pending'::text NOT NULL,
    scopes text[],
    inputs jsonb DEFAULT '{}'::jsonb NOT NULL,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    account text,
    captured jsonb DEFAULT '{}'::jsonb NOT NULL,
    credentials_revision integer DEFAULT 0 NOT NULL,
    credentials_sealed bytea,
    generation integer DEFAULT 0 NOT NULL,
    authorization_seq integer DEFAULT 0 NOT NULL,
    version integer DEFAULT 0 NOT NULL,
    access_token_sealed bytea,
    refresh_token_sealed bytea,
    refresh_fingerprint bytea,
    token_type text,
    granted_scopes text[],
    issued_at timestamp(3) with time zone,
    expires_at timestamp(3) with time zone,
    refresh_token_expires_at timestamp(3) with time zone,
    authorized_at timestamp(3) with time zone,
    attempt_id uuid,
    attempt_started_at timestamp(3) with time zone,
    lease_until timestamp(3) with time zone,
    attempt_outcome text,
    attempt_answer_sealed bytea,
    last_attempt_id uuid,
    backoff_until timestamp(3) with time zone,
    consecutive_failures integer DEFAULT 0 NOT NULL,
    last_error_code text,
    last_error_at timestamp(3) with time zone,
    last_error_detail text,
    last_refreshed_at timestamp(3) with time zone,
    next_refresh_at timestamp(3) with time zone,
    created_at timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    updated_at timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    attempt_replays integer DEFAULT 0 NOT NULL,
    gone_back_from integer,
    in_use boolean DEFAULT false NOT NULL,
    keep_alive_at timestamp(3) with time zone,
    refresh_due_at timestamp(3) with time zone,
    version_floor integer DEFAULT 0 NOT NULL,
    account_captured jsonb DEFAULT '{}'::jsonb NOT NULL,
    account_label text,
    chain text,
    looked_up integer,
    parent_id uuid,
    CONSTRAINT connections_permit_check CHECK ((((attempt_id IS NULL) = (lease_until IS NULL)) AND ((attempt_id IS NULL) = (attempt_started_at IS NULL)))),
    CONSTRAINT connections_status_check CHECK (((status = ANY (ARRAY['pending'::text, 'connected'::text, 'needs_reauthorization'::text, 'disabled'::text])) AND (enabled_status = ANY (ARRAY['pending'::text, 'connected'::text, 'needs_reauthorization'::text]))))
);

CREATE TABLE public.consent_links (
    id text NOT NULL,
    connection_id uuid NOT NULL,
    secret_hash bytea NOT NULL,
    return_to text,
    manual boolean DEFAULT false NOT NULL,
    created_by text NOT NULL,
    claimed_by bytea,
    used_at timestamp(3) with time zone,
    expires_at timestamp(3) with time zone NOT NULL,
    created_at timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL
);

CREATE TABLE public.device_authorizations (
    connection_id uuid NOT NULL,
    id uuid NOT NULL,
    device_code_sealed bytea NOT NULL,
    link_id text,
    user_code text NOT NULL,
    verification_uri text NOT NULL,
    verification_uri_complete text,
    interval_s integer NOT NULL,
    next_poll_at timestamp(3) with time zone NOT NULL,
    expires_at timestamp(3) with time zone NOT NULL,
    created_at timestamp(3) with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE public.encryption_keys (
    id text NOT NULL,
    check_sealed bytea NOT NULL,
    created_at timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL
);

CREATE TABLE public.held_grants (
    attempt_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    generation integer NOT NULL,
    record_sealed bytea NOT NULL,
    account text,
    account_label text,
    link_id text,
    accepted boolean DEFAULT false NOT NULL,
    created_at timestamp(3) with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE public.request_limits (
    key text NOT NULL,
    seen_by timestamp(3) with time zone[],
    running timestamp(3) with time zone[],
    keep_seconds double precision NOT NULL,
    closed_until timestamp(3) with time zone,
    asked_at timestamp(3) with time zone NOT NULL,
    wait_seconds double precision NOT NULL
);

CREATE TABLE public.tombstones (
    name text NOT NULL,
    connection_id uuid NOT NULL,
    version integer NOT NULL,
    authorization_seq integer NOT NULL,
    provider text NOT NULL,
    client_ref uuid,
    inputs jsonb DEFAULT '{}'::jsonb NOT NULL,
    captured jsonb DEFAULT '{}'::jsonb NOT NULL,
    deleted_at timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL
);

ALTER TABLE ONLY public.connection_events ALTER COLUMN id SET DEFAULT nextval('public.connection_events_id_seq'::regclass);

INSERT INTO public._prisma_migrations VALUES ('05001a58-decd-483d-89b2-ced7f633da70', '9ad68afdb25fe853a3183647f5d1b26d951799b23822092d76b9038a513c9fe0', '2026-11-28 08:52:03.726754+00', '20261121000000_init', NULL, NULL, '2026-11-28 08:52:03.726754+00', 1);
INSERT INTO public._prisma_migrations VALUES ('89bebc63-f994-4392-91bb-7dc5bcb5726d', 'b2540ef46a21bb776b597244a9581d9769fbd1ba26df0d13c92bab8869ca929f', '2026-11-28 08:52:03.75576+00', '20261121120000_recovery', NULL, NULL, '2026-11-28 08:52:03.75576+00', 1);
INSERT INTO public._prisma_migrations VALUES ('776d700d-463b-45fb-98a0-74dd9e86bab6', 'c55664c533516153378201086406a94f5383c7cc213a7342ce4a31c28e23337a', '2026-11-28 08:52:03.764708+00', '20261121170000_request_limits', NULL, NULL, '2026-11-28 08:52:03.764708+00', 1);
INSERT INTO public._prisma_migrations VALUES ('e4ed8678-9203-49ac-bb2d-3c387c79ebf2', '8c8b08b193c1bc9a39fb4952eff94c6e33a25d7ac38b2db1e932df4b12996641', '2026-11-28 08:52:03.79841+00', '20261121180000_accounts', NULL, NULL, '2026-11-28 08:52:03.79841+00', 1);

INSERT INTO public.api_keys VALUES ('TGb7dJ1lg18F', 'reader', '\x7268ef1f17c39718828e05d3e43f8527691f9acff5d36d442237aea2582e0861', '{tokens}', '{d-*}', NULL, NULL, '2026-11-28 08:52:04.562+00');
INSERT INTO public.api_keys VALUES ('op5EbLhOGjge', 'maker', '\x8c1c662bcf584f2c2fca758f828364a5ef143c633c5f23780b41bf3f81792e2a', '{connections,admin}', '{*}', NULL, NULL, '2026-11-28 08:52:04.601+00');
INSERT INTO public.api_keys VALUES ('EkJoviSIVnDC', 'revoked', '\x9c141ad9ddf20475ba021beadbe6dea7b3bbf88670af9a178b4e0d00bd0de86c', '{tokens}', '{*}', NULL, '2026-11-28 08:52:04.689+00', '2026-11-28 08:52:04.616+00');

INSERT INTO public.candidates VALUES ('e9cde6bd-ac2a-4fda-aab7-1e74afb6d887', '26cb9bc4-973a-43e8-a740-f59d9107cef4', 1, 1, '\x01026b311ff2cf0a56ab5d537d4dba1b697cbbc66428bca0660deee0330bf32d7e0330cc61644db16ac3bf532a2490c3e3ca3e47ce50e1dad951a4c7ea7df330d10c500a8efcb26a633c12368bb0ebde83e43d98e45330da02596cdb171885f2feed8a35f1f39fea626ea6863f119f60069c98ea8ff8619057e262480aeae34a0f1fa72f41a39a28746cd9802a38ed1aecf2fbb541cd46d74aa9ec6c899e0a28a21a52c275e55e5b6644416e2b1ff2725b8df59473fc5ef734ed812db67b0c85deda98f76bbae18db923b4b03562e9ea73390ab45d9b16f9d8537792aed2dcfd9db0eea2ef9d00549ef185c75c400688c9ad9dca71747a89ef1c7b581eeeb0059800546c1247d0a01019b3ccbbcd8500d4460ecd519b9ff4b4ca4ad47cf4d02644dd224f4aa5f62314ff4f8964f575ea091dd61e774ef3c283c9a0ffe869d13d081e7b7b91733a258dce228c685b628155588a54c3478daae625cb14b8ef6f6efebdc6d21a137e7a35fa82aed6006245cc4a15400240f08b6d8ef4153ec1eed133d6d15a5501b21d4519e1dfeb20061ad77e351a8136b920ea04a0f8aa5abc4bb72d7977271bb3689d1d30da8aa81c9ee83b3e065201ff82d7ffc903f12305f36505ea995623721428debc914beb88fe6679ba624eb95b511a68889d2a7b1154e349781772f51bd7cd2b8ea1d834f770571e5d3f0cf3c85e0ba27c83df4e23e73cbd18cc37a54d1fa7975042d8c343ca0a442a382471cca9e71475ecdf9fe4f9d05a5a628f61ec408e55cd31e505c636b012032d2d8ba3d912ebed19c3fd815dce073c235f4bcb8011055c7797df7adf352964095cf0acdcd789c2b2ead216032f0328f20fb469d268040cfc653280476d4dc6266db6f63666cf9b924c9e406d2d2b5924b71f33adab491f8436dce32c33a14665a5a903d138594e636124641d1e8bf88ab74c284bcda1b9cf8b0929a2d9c9dbd17ad1d731644368b5a51909a7e9', '2026-11-28 08:52:06.402+00');

INSERT INTO public.clients VALUES ('95f7a81e-3daa-48c7-834f-b9ad5ea1830b', 'plain-client', 'shopware', 'SWIA', 0, '\x01026b3168539cffbde835718b89a4ef7257571fb7b05f1bc1a49c0ec08faca6b23835be23694a9db32bb73472d666', NULL, '{}', '{"shop_url": "https://shop.example.com"}', '2026-11-28 08:52:04.537+00', '2026-11-28 08:52:04.537+00');
INSERT INTO public.clients VALUES ('0309dd4a-cf81-4b83-bda0-06a022c6c114', 'shop-client', 'dumped', 'app-1', 1, '\x01026b3144bce541a9dfc37ae169ea80b346d4771220e1a6985f67d9cac8c61339a6a8b388bb04dd7a56eeb831186e', NULL, '{}', '{"shop": "127.0.0.1"}', '2026-11-28 08:52:04.458+00', '2026-11-28 08:52:04.481+00');

INSERT INTO public.connection_events VALUES (1, '3ac699ea-7a1f-4476-a861-8bc4db8206fc', '2026-11-28 08:52:04.712+00', 'created', '{}');
INSERT INTO public.connection_events VALUES (2, '3ac699ea-7a1f-4476-a861-8bc4db8206fc', '2026-11-28 08:52:04.788+00', 'imported', '{"attempt": "7c99414d-88b4-486e-8df7-6ed2d5edab0c"}');
INSERT INTO public.connection_events VALUES (3, '26cb9bc4-973a-43e8-a740-f59d9107cef4', '2026-11-28 08:52:04.896+00', 'created', '{}');
INSERT INTO public.connection_events VALUES (4, '26cb9bc4-973a-43e8-a740-f59d9107cef4', '2026-11-28 08:52:04.91+00', 'imported', '{"attempt": "84013bea-a0e8-4782-b2cc-0c196b2abab0"}');
INSERT INTO public.connection_events VALUES (5, '8585d912-75b4-4dc6-aa67-24bd72f9af2f', '2026-11-28 08:52:04.926+00', 'created', '{}');
INSERT INTO public.connection_events VALUES (6, '8585d912-75b4-4dc6-aa67-24bd72f9af2f', '2026-11-28 08:52:04.935+00', 'imported', '{"attempt": "4425429b-63b9-4da7-b877-20f17d82370c"}');
INSERT INTO public.connection_events VALUES (7, '5b7ea5ce-e5ff-4d83-bdf3-83b3248e3fb0', '2026-11-28 08:52:04.943+00', 'created', '{}');
INSERT INTO public.connection_events VALUES (8, '5b7ea5ce-e5ff-4d83-bdf3-83b3248e3fb0', '2026-11-28 08:52:04.953+00', 'imported', '{"attempt": "38e815e7-a718-4ce4-b991-438db37a1bc6"}');
INSERT INTO public.connection_events VALUES (9, 'e8221f7c-cf91-4c83-9ba7-0d4c1c2c0a64', '2026-11-28 08:52:04.965+00', 'created', '{}');
INSERT INTO public.connection_events VALUES (10, 'e8221f7c-cf91-4c83-9ba7-0d4c1c2c0a64', '2026-11-28 08:52:04.976+00', 'imported', '{"attempt": "2b265fdf-9429-4d01-9f44-f719b7391761"}');
INSERT INTO public.connection_events VALUES (11, 'f89b0e38-92e4-41ea-aad7-e339818598ae', '2026-11-28 08:52:04.997+00', 'created', '{}');
INSERT INTO public.connection_events VALUES (12, 'f89b0e38-92e4-41ea-aad7-e339818598ae', '2026-11-28 08:52:05.018+00', 'imported', '{"attempt": "f47acb50-2bdc-479f-9aae-91304dc7c69d"}');
INSERT INTO public.connection_events VALUES (13, 'df6364ad-e1e3-46aa-b3a7-372b28e1e4d0', '2026-11-28 08:52:05.029+00', 'created', '{}');
INSERT INTO public.connection_events VALUES (14, 'df6364ad-e1e3-46aa-b3a7-372b28e1e4d0', '2026-11-28 08:52:05.054+00', 'imported', '{"attempt": "bbe26e8f-12c8-40cd-b51c-2a24d636e6ea"}');
INSERT INTO public.connection_events VALUES (17, 'b0f38f4e-9d3d-4b14-b13d-f2775f1c4c29', '2026-11-28 08:52:05.173+00', 'created', '{}');
INSERT INTO public.connection_events VALUES (18, 'b0f38f4e-9d3d-4b14-b13d-f2775f1c4c29', '2026-11-28 08:52:05.229+00', 'refreshed', '{"attempt": "5ec007af-9b1d-46ea-9fe3-84cd93641eae", "generation": 1}');
INSERT INTO public.connection_events VALUES (19, 'fd159a63-fd6d-4d11-960c-8f715058f4db', '2026-11-28 08:52:05.286+00', 'created', '{}');
INSERT INTO public.connection_events VALUES (20, 'fd159a63-fd6d-4d11-960c-8f715058f4db', '2026-11-28 08:52:05.501+00', 'refreshed', '{"attempt": "d3e093c2-779a-44f2-82c2-80dd5ff7542f", "generation": 1}');
INSERT INTO public.connection_events VALUES (21, 'ff132694-eab0-4680-b702-fd8b03cc05c9', '2026-11-28 08:52:05.533+00', 'created', '{}');
INSERT INTO public.connection_events VALUES (22, '5834f5c8-061e-4dc6-acc3-cf2255bd9734', '2026-11-28 08:52:05.718+00', 'created', '{}');
INSERT INTO public.connection_events VALUES (23, 'ff132694-eab0-4680-b702-fd8b03cc05c9', '2026-11-28 08:52:05.875+00', 'consent_link_created', '{"link": "6f132236df4a0ec4", "created_by": "admin", "expires_at": "2026-11-28T09:52:05.874Z"}');
INSERT INTO public.connection_events VALUES (24, 'e8221f7c-cf91-4c83-9ba7-0d4c1c2c0a64', '2026-11-28 08:52:05.89+00', 'disabled', '{"changed": ["disabled"]}');
INSERT INTO public.connection_events VALUES (25, 'f89b0e38-92e4-41ea-aad7-e339818598ae', '2026-11-28 08:52:06.073+00', 'needs_reauthorization', '{"code": "invalid_grant", "detail": "the provider answered 400: invalid_grant", "status": 400}');
INSERT INTO public.connection_events VALUES (26, '5df329bc-89e6-48eb-a5be-8d369a74c7fa', '2026-11-28 08:52:06.364+00', 'connected', '{}');
INSERT INTO public.connection_events VALUES (27, '26cb9bc4-973a-43e8-a740-f59d9107cef4', '2026-11-28 08:52:06.402+00', 'answer_kept', '{}');

INSERT INTO public.connections VALUES ('3ac699ea-7a1f-4476-a861-8bc4db8206fc', 'd-connected', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'import', 'connected', 'connected', '{read}', '{"note": "n", "region": "localhost"}', '{"tenant": "7"}', NULL, '{}', 0, NULL, 1, 1, 1, '\x01026b316a6c0fecf6585b230705cb7eb662511347c103d985dc13522c083eb1e27d2f8a8fc8dfb6779c7646', '\x01026b310b44433eaccad8a36984b5415514b606558ae6f347283a66f98884c07ba98a1e6ad6d00e38bfda0a', '\x8f13378cec037e24e94ed1969871edd8adbd54d089ff3d5c2277d52cf778aabc', 'Bearer', '{read}', '2026-11-28 08:52:04.78+00', '2026-11-28 09:52:04.78+00', NULL, '2026-11-28 08:52:04.78+00', NULL, NULL, NULL, NULL, NULL, '7c99414d-88b4-486e-8df7-6ed2d5edab0c', NULL, 0, NULL, NULL, NULL, '2026-11-28 08:52:04.788+00', NULL, '2026-11-28 08:52:04.71+00', '2026-11-28 08:52:04.788+00', 0, NULL, false, NULL, '2026-11-28 09:34:20.608+00', 0, '{}', NULL, NULL, NULL, NULL);
INSERT INTO public.connections VALUES ('1a1e9a95-af0a-4c62-879c-7a1a25cdf93b', 'd-connected#user', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'import', 'pending', 'pending', '{read}', '{}', '{}', NULL, '{}', 0, NULL, 1, 1, 0, NULL, NULL, NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, '2026-11-28 08:52:04.717+00', '2026-11-28 08:52:04.788+00', 0, NULL, false, NULL, NULL, 0, '{}', NULL, 'user', NULL, '3ac699ea-7a1f-4476-a861-8bc4db8206fc');
INSERT INTO public.connections VALUES ('26cb9bc4-973a-43e8-a740-f59d9107cef4', 'd-candidate', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'import', 'connected', 'connected', '{read}', '{"note": "n", "region": "localhost"}', '{}', NULL, '{}', 0, NULL, 1, 1, 1, '\x01026b315a1e587a4dadb61dd2e6262b5317b0ad8700f2d0d42b327ecc7ecd096c7c58877586d968d4c4293c', '\x01026b310a59154c934ef1649a02add43c9c2bcc5a4b8c89e120896e8a52ae7219fda058619cd205a61319f1', '\xaa82e3b538c89e21664881ce940286da9509304b28ab137d8ca7fed993fe1d6d', 'Bearer', '{read}', '2026-11-28 08:52:04.902+00', '2026-11-28 09:52:04.902+00', NULL, '2026-11-28 08:52:04.902+00', NULL, NULL, NULL, NULL, NULL, '84013bea-a0e8-4782-b2cc-0c196b2abab0', NULL, 0, NULL, NULL, NULL, '2026-11-28 08:52:04.909+00', NULL, '2026-11-28 08:52:04.896+00', '2026-11-28 08:52:04.909+00', 0, NULL, false, NULL, '2026-11-28 09:36:18.039+00', 0, '{}', NULL, NULL, NULL, NULL);
INSERT INTO public.connections VALUES ('641c9b44-9a0d-4612-bfc9-21691b2971b2', 'd-candidate#user', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'import', 'pending', 'pending', '{read}', '{}', '{}', NULL, '{}', 0, NULL, 1, 1, 0, NULL, NULL, NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, '2026-11-28 08:52:04.897+00', '2026-11-28 08:52:04.909+00', 0, NULL, false, NULL, NULL, 0, '{}', NULL, 'user', NULL, '26cb9bc4-973a-43e8-a740-f59d9107cef4');
INSERT INTO public.connections VALUES ('8585d912-75b4-4dc6-aa67-24bd72f9af2f', 'd-held', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'import', 'connected', 'connected', '{read}', '{"note": "n", "region": "localhost"}', '{}', NULL, '{}', 0, NULL, 1, 1, 1, '\x01026b3196428e0c4d3a93f0c7c6bb794879b9a4bed9e084ec965be8df2ee300da1ba408ce93c0', '\x01026b311e0d74118a99ead7c9ee2aa557c75f36b6df2db8136cc20dbb1bf1ccc16f8aa5ffe31d', '\x055f558007e52bfc5934b52159cbade3d6718b9cf85076b417db14d10f30d8c1', 'Bearer', '{read}', '2026-11-28 08:52:04.931+00', '2026-11-28 09:52:04.931+00', NULL, '2026-11-28 08:52:04.931+00', NULL, NULL, NULL, NULL, NULL, '4425429b-63b9-4da7-b877-20f17d82370c', NULL, 0, NULL, NULL, NULL, '2026-11-28 08:52:04.935+00', NULL, '2026-11-28 08:52:04.926+00', '2026-11-28 08:52:04.935+00', 0, NULL, false, NULL, '2026-11-28 09:39:54.662+00', 0, '{}', NULL, NULL, NULL, NULL);
INSERT INTO public.connections VALUES ('4fa6c31f-25d5-4084-844d-d6a85b2db163', 'd-held#user', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'import', 'pending', 'pending', '{read}', '{}', '{}', NULL, '{}', 0, NULL, 1, 1, 0, NULL, NULL, NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, '2026-11-28 08:52:04.927+00', '2026-11-28 08:52:04.935+00', 0, NULL, false, NULL, NULL, 0, '{}', NULL, 'user', NULL, '8585d912-75b4-4dc6-aa67-24bd72f9af2f');
INSERT INTO public.connections VALUES ('0e2d092c-4a85-470e-95f0-33e942c2ad9f', 'd-spooled#user', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'import', 'pending', 'pending', '{read}', '{}', '{}', NULL, '{}', 0, NULL, 1, 1, 0, NULL, NULL, NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, '2026-11-28 08:52:04.946+00', '2026-11-28 08:52:04.953+00', 0, NULL, false, NULL, NULL, 0, '{}', NULL, 'user', NULL, '5b7ea5ce-e5ff-4d83-bdf3-83b3248e3fb0');
INSERT INTO public.connections VALUES ('8c25df7b-c0c9-4c53-9ab3-ef37ae1bf318', 'd-ended#user', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'import', 'pending', 'pending', '{read}', '{}', '{}', NULL, '{}', 0, NULL, 1, 1, 0, NULL, NULL, NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, '2026-11-28 08:52:04.998+00', '2026-11-28 08:52:05.018+00', 0, NULL, false, NULL, NULL, 0, '{}', NULL, 'user', NULL, 'f89b0e38-92e4-41ea-aad7-e339818598ae');
INSERT INTO public.connections VALUES ('df6364ad-e1e3-46aa-b3a7-372b28e1e4d0', 'd-chain', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'import', 'connected', 'connected', '{read}', '{"note": "n", "region": "localhost"}', '{}', NULL, '{}', 0, NULL, 1, 1, 1, '\x01026b31bd82ee8b7a921bfd69b056b1cca99272544dc8b9fcb1261ac31e3d72b9b3df1bcd9c349b', '\x01026b31e045d0bfc7fbd377d78b86f2556ebd773c0a9e42f7b1339bac0560610767be6ee329909a', '\x8a89b7fcc13232f6adbf29ecd6794d2c3973d3b79484572578faa6072d21108b', 'Bearer', '{read}', '2026-11-28 08:52:05.038+00', '2026-11-28 09:52:05.038+00', NULL, '2026-11-28 08:52:05.038+00', NULL, NULL, NULL, NULL, NULL, 'bbe26e8f-12c8-40cd-b51c-2a24d636e6ea', NULL, 0, NULL, NULL, NULL, '2026-11-28 08:52:05.054+00', NULL, '2026-11-28 08:52:05.029+00', '2026-11-28 08:52:05.054+00', 0, NULL, false, NULL, '2026-11-28 09:39:44.596+00', 0, '{}', NULL, NULL, NULL, NULL);
INSERT INTO public.connections VALUES ('5df329bc-89e6-48eb-a5be-8d369a74c7fa', 'd-chain#user', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'import', 'connected', 'connected', '{read}', '{}', '{}', NULL, '{"tenant": "t1"}', 0, NULL, 2, 2, 1, '\x01026b314d6f1f64d9fb1c31b7d81eb92e3eef0f26bdd257d8a7af6e91d4864efe9e5d617175992384d6bfd881', '\x01026b310de769f7d1a69313cf3c8d6f7881fd04398428801af07e4c3c10489fb90e955fa5f2d4d5cdf6468023', '\x112c209127e7a5e516832da50870e823cab7e0b1dcd6eca9dc4ee6fbd4822bad', 'Bearer', '{read}', '2026-11-28 08:52:06.358+00', '2026-11-28 09:52:06.358+00', NULL, '2026-11-28 08:52:06.358+00', NULL, NULL, NULL, NULL, NULL, '62c1c590-6f3b-4740-a93e-2bc1ba8f0fc0', NULL, 0, NULL, NULL, NULL, '2026-11-28 08:52:06.364+00', NULL, '2026-11-28 08:52:05.033+00', '2026-11-28 08:52:06.364+00', 0, NULL, false, NULL, '2026-11-28 09:39:23.364+00', 0, '{}', NULL, 'user', NULL, 'df6364ad-e1e3-46aa-b3a7-372b28e1e4d0');
INSERT INTO public.connections VALUES ('d987aafd-efbd-42b2-aa91-0706a636f2e8', 'd-cc#user', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'client_credentials', 'pending', 'pending', '{read}', '{}', '{}', NULL, '{}', 0, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, '2026-11-28 08:52:05.177+00', '2026-11-28 08:52:05.177+00', 0, NULL, false, NULL, NULL, 0, '{}', NULL, 'user', NULL, 'b0f38f4e-9d3d-4b14-b13d-f2775f1c4c29');
INSERT INTO public.connections VALUES ('b0f38f4e-9d3d-4b14-b13d-f2775f1c4c29', 'd-cc', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'client_credentials', 'connected', 'connected', '{read}', '{"note": "n", "region": "localhost"}', '{}', NULL, '{}', 0, NULL, 1, 0, 1, '\x01026b31b052d6283211d22a3c027220f0461865ec44208eb1393dd55366e1ab969087e63ed3b5d80819a8d2dcad726fde3fae637b7b', NULL, NULL, 'Bearer', '{read}', '2026-11-28 08:52:05.186+00', '2026-11-28 09:52:05.186+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '5ec007af-9b1d-46ea-9fe3-84cd93641eae', NULL, 0, NULL, NULL, NULL, '2026-11-28 08:52:05.225+00', NULL, '2026-11-28 08:52:05.173+00', '2026-11-28 08:52:05.225+00', 0, NULL, false, NULL, '2026-11-28 09:37:14.591+00', 0, '{}', NULL, NULL, NULL, NULL);
INSERT INTO public.connections VALUES ('0c97c9bf-1cca-44e6-8f62-36c1816ffe6e', 'd-password#user', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'password', 'pending', 'pending', '{read}', '{}', '{}', NULL, '{}', 0, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, '2026-11-28 08:52:05.289+00', '2026-11-28 08:52:05.289+00', 0, NULL, false, NULL, NULL, 0, '{}', NULL, 'user', NULL, 'fd159a63-fd6d-4d11-960c-8f715058f4db');
INSERT INTO public.connections VALUES ('fd159a63-fd6d-4d11-960c-8f715058f4db', 'd-password', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'password', 'connected', 'connected', '{read}', '{"note": "n", "region": "localhost"}', '{}', NULL, '{}', 0, '\x01026b3169bd4ca497743b293d3028dab22b25860d255619c2e1c5a706e82aade9d137b5bb13424750bc612c1bd009faa0ce979f294b6aaa2c3974f817645c2c9b22df786033867195e7', 1, 0, 1, '\x01026b31d5cb58b14dd6b45261ec869bf3073e0d90a3c7518ececa152d363a70e2cbc0c3f47a40766780a9e05e', NULL, NULL, 'Bearer', '{read}', '2026-11-28 08:52:05.313+00', '2026-11-28 09:52:05.313+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'd3e093c2-779a-44f2-82c2-80dd5ff7542f', NULL, 0, NULL, NULL, NULL, '2026-11-28 08:52:05.501+00', NULL, '2026-11-28 08:52:05.285+00', '2026-11-28 08:52:05.501+00', 0, NULL, false, NULL, '2026-11-28 09:37:09.8+00', 0, '{}', NULL, NULL, NULL, NULL);
INSERT INTO public.connections VALUES ('ff132694-eab0-4680-b702-fd8b03cc05c9', 'd-pending', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'authorization_code', 'pending', 'pending', '{read}', '{"note": "n", "region": "localhost"}', '{}', NULL, '{}', 0, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, '2026-11-28 08:52:05.533+00', '2026-11-28 08:52:05.533+00', 0, NULL, false, NULL, NULL, 0, '{}', NULL, NULL, NULL, NULL);
INSERT INTO public.connections VALUES ('41173618-9a30-462b-a186-d415d74af245', 'd-pending#user', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'authorization_code', 'pending', 'pending', '{read}', '{}', '{}', NULL, '{}', 0, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, '2026-11-28 08:52:05.536+00', '2026-11-28 08:52:05.536+00', 0, NULL, false, NULL, NULL, 0, '{}', NULL, 'user', NULL, 'ff132694-eab0-4680-b702-fd8b03cc05c9');
INSERT INTO public.connections VALUES ('5834f5c8-061e-4dc6-acc3-cf2255bd9734', 'd-device', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'device_code', 'pending', 'pending', '{read}', '{"note": "n", "region": "localhost"}', '{}', NULL, '{}', 0, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, '2026-11-28 08:52:05.718+00', '2026-11-28 08:52:05.718+00', 0, NULL, false, NULL, NULL, 0, '{}', NULL, NULL, NULL, NULL);
INSERT INTO public.connections VALUES ('f89b0e38-92e4-41ea-aad7-e339818598ae', 'd-ended', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'import', 'needs_reauthorization', 'needs_reauthorization', '{read}', '{"note": "n", "region": "localhost"}', '{}', NULL, '{}', 0, NULL, 1, 1, 1, '\x01026b317f864e276351e399e4a79af3d4054dbff8096dd168b1871434b5a8efb2a82abbe5431a51', '\x01026b31bcd6a0061d8e74399bf62578fe8d6ad1ea6ae937e008aec3fa66a517e5ca58a9ccfa150c', '\x1c1f704253b98079db4abcd3050d3104cd643c3e1091479f8894ec34516df8ae', 'Bearer', '{read}', '2026-11-28 08:52:05.005+00', '2026-11-28 09:52:05.005+00', NULL, '2026-11-28 08:52:05.005+00', NULL, NULL, NULL, NULL, NULL, 'f47acb50-2bdc-479f-9aae-91304dc7c69d', NULL, 1, 'invalid_grant', '2026-11-28 08:52:06.073+00', 'the provider answered 400: invalid_grant', '2026-11-28 08:52:05.018+00', NULL, '2026-11-28 08:52:04.997+00', '2026-11-28 08:52:06.073+00', 0, NULL, false, NULL, '2026-11-28 09:36:34.096+00', 1, '{}', NULL, NULL, NULL, NULL);
INSERT INTO public.connections VALUES ('5b7ea5ce-e5ff-4d83-bdf3-83b3248e3fb0', 'd-spooled', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'import', 'connected', 'connected', '{read}', '{"note": "n", "region": "localhost"}', '{}', NULL, '{}', 0, NULL, 1, 1, 1, '\x01026b319000c4c1e5b3b488eec075f9d93168273d4e88cf32529299241405e59621fe4916f5b84e6930', '\x01026b31742d4bc0072e312dc18220a80d8c828882c619f09fff953fc3bded9c6dc940c1ffa3fc8358fe', '\xf558a261ffac3cb7bdc8cbb9c49265ed7f1ceec4547d3acbf3e255e34cf3d9d7', 'Bearer', '{read}', '2026-11-28 08:52:04.949+00', '2026-11-28 09:52:04.949+00', NULL, '2026-11-28 08:52:04.949+00', '1f42016c-0300-4700-8a5f-25dfd1315558', '2026-11-28 08:52:06.465+00', '2026-11-28 08:52:36.465+00', NULL, NULL, '38e815e7-a718-4ce4-b991-438db37a1bc6', NULL, 0, NULL, NULL, NULL, '2026-11-28 08:52:04.953+00', '2026-11-28 09:52:04.949+00', '2026-11-28 08:52:04.943+00', '2026-11-28 08:52:04.953+00', 0, NULL, false, NULL, '2026-11-28 09:39:46.077+00', 0, '{}', NULL, NULL, NULL, NULL);
INSERT INTO public.connections VALUES ('ac19c5c6-c74f-45a3-b804-cd71b6156207', 'd-device#user', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'device_code', 'pending', 'pending', '{read}', '{}', '{}', NULL, '{}', 0, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, '2026-11-28 08:52:05.843+00', '2026-11-28 08:52:05.843+00', 0, NULL, false, NULL, NULL, 0, '{}', NULL, 'user', NULL, '5834f5c8-061e-4dc6-acc3-cf2255bd9734');
INSERT INTO public.connections VALUES ('e8221f7c-cf91-4c83-9ba7-0d4c1c2c0a64', 'd-disabled', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'import', 'disabled', 'connected', '{read}', '{"note": "n", "region": "localhost"}', '{}', NULL, '{}', 0, NULL, 1, 1, 1, '\x01026b31e98ab5269e0a0147c5e9a84ef14a3a2468e909a15fc5c073cdeba0eb53c94f6d8317752a28ec73', '\x01026b316e99b0904d2e019beef14c49c1e38e07579934d37bfb35e1a7c3d0ed5d7b599141ef9bec336282', '\xa0b31b403c51a849ff09241e7dc4e765064b1960f625f30b68c2d19d18d0cb1e', 'Bearer', '{read}', '2026-11-28 08:52:04.969+00', '2026-11-28 09:52:04.969+00', NULL, '2026-11-28 08:52:04.969+00', NULL, NULL, NULL, NULL, NULL, '2b265fdf-9429-4d01-9f44-f719b7391761', NULL, 0, NULL, NULL, NULL, '2026-11-28 08:52:04.975+00', NULL, '2026-11-28 08:52:04.964+00', '2026-11-28 08:52:05.89+00', 0, NULL, false, NULL, '2026-11-28 09:39:34.525+00', 0, '{}', NULL, NULL, NULL, NULL);
INSERT INTO public.connections VALUES ('e8f1b188-8a28-48ac-99df-7b8ec4891b67', 'd-disabled#user', 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', 'import', 'disabled', 'pending', '{read}', '{}', '{}', NULL, '{}', 0, NULL, 1, 1, 0, NULL, NULL, NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, '2026-11-28 08:52:04.965+00', '2026-11-28 08:52:05.89+00', 0, NULL, false, NULL, NULL, 0, '{}', NULL, 'user', NULL, 'e8221f7c-cf91-4c83-9ba7-0d4c1c2c0a64');

INSERT INTO public.consent_links VALUES ('6f132236df4a0ec4', 'ff132694-eab0-4680-b702-fd8b03cc05c9', '\x9c582d447de8e44fd3d45200ab6c797c25bcfbed019fb6aa6200c03c11817d0c', NULL, false, 'admin', NULL, NULL, '2026-11-28 09:52:05.874+00', '2026-11-28 08:52:05.874+00');

INSERT INTO public.device_authorizations VALUES ('5834f5c8-061e-4dc6-acc3-cf2255bd9734', 'f07dcd7d-4690-4711-8e33-9ebd658f6784', '\x01026b31527df8237f0a67855e84846b0a5022c8efc19dc9ea4a1573b482ca1bc1b0a9ed526bae21c15c5398ef', NULL, 'ABCD', 'https://login.example/device', NULL, 5, '2026-11-28 08:52:11.478+00', '2026-11-28 09:52:06.478+00', '2026-11-28 08:52:06.478+00');

INSERT INTO public.encryption_keys VALUES ('k1', '\x01026b31e11aeb17672f2afa073fa823b54947e9846608bfed61b7439d534a1e1c4778d431cbca4e42419e939111aaff9522bc5028', '2026-11-28 08:52:04.312+00');

INSERT INTO public.held_grants VALUES ('6e128aec-15c6-4a81-901e-1ab20b1e4902', '8585d912-75b4-4dc6-aa67-24bd72f9af2f', 1, '\x01026b31bb475656bb324eb8db728fbd4c05887612f33d0a3701b38e0197ff109c47121b3e346b38d970f5cc6612972ab7800f9ad5e05dafb5fcba814c1b8402f5e1f5c6522beae0e636737001e6ba713c7d048d647754f03fcde826e03e8bc7f8301bc5e69aba3671851739353e41997d053cb71d5808dab06ee48550d869876cfdd40d7f39d518ad40ce938b81298532d3ff77e4e16f16c98ce675e3c9b8818eb53119f0d765da34ac58cca425702af3c28c1cd1bf918e1256e20ae4cb8fb05c637503519a249d1859fbd786e22e59c2853069a5a205eb8852bf5f3c70c77a10dd9f179e5847b42de51678babf76e9371159cd867fdcd4da0e45a30fc53dd634a36c388a48d9a2635c9406953b66a72a485f8b7dc5ddda4b91791fcd69a45ab02b48e0ef680e09f3abc222cbc969a47a7c8e02ef3a9ee53efa52c5ba3c0a38506c440e0b5589935d3dbd245631219d90ac6fb71f0fedda48cd68b911afeb7d03778cb1b40ae4f1844ccb8499d02ead32ef76915f22691a1ea52af382b9240066cc8c36cf8a045b33b11830f1234afb8784063cff4598bf04c1bbd53bfa4d7ae19799542b4cbf472539dcbba8e0e82d2eb17e9fddee5bd85b403ee88d58fd996898edb0d3b51d489d619298fdb541a98ac0b38286417cb0cc5b6790fe47b9ed57ddf1a803070321e45b30b1001de6ebe93ead89fe300199d8b9026cc4861b863c78ca832e48c515019e140cc14ca802ac292f76e26acefa20889b753733c53be5b372585a15693df1ced0e8882265b985b48caffe3d232cc97838bafd7cc5a57aa11d43df68d6660cbff478cd38aeb0a5a958fb7609d9305b26b10ced2dd8539c274d13a1eea2c29ddfe1d2a122438bbb5bb428e71907c1726dc1731bec712325d732b80716a1d1aaed551f66e79c6ebb84cf1ae8a60e22e39261779ea2d4db34f6f34dd901d493373dcc1ee91a4d6b2d6ee350d2a31a70a094abf2d40f0b2d', 'bob', 'bob@example.com', NULL, false, '2026-11-28 08:52:06.436+00');

INSERT INTO public.tombstones VALUES ('d-deleted', '03c3626f-2b57-4162-bbc9-004ff839025e', 1, 1, 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', '{"note": "n", "region": "localhost"}', '{}', '2026-11-28 08:52:06.095+00');
INSERT INTO public.tombstones VALUES ('d-deleted#user', '62c697fe-ebd6-4788-a517-a9ceecddf68e', 0, 1, 'dumped', '0309dd4a-cf81-4b83-bda0-06a022c6c114', '{}', '{}', '2026-11-28 08:52:06.095+00');

SELECT pg_catalog.setval('public.connection_events_id_seq', 27, true);

ALTER TABLE ONLY public._prisma_migrations
    ADD CONSTRAINT _prisma_migrations_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.authorization_requests
    ADD CONSTRAINT authorization_requests_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.candidates
    ADD CONSTRAINT candidates_pkey PRIMARY KEY (attempt_id);

ALTER TABLE ONLY public.clients
    ADD CONSTRAINT clients_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.connection_events
    ADD CONSTRAINT connection_events_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.connections
    ADD CONSTRAINT connections_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.consent_links
    ADD CONSTRAINT consent_links_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.device_authorizations
    ADD CONSTRAINT device_authorizations_pkey PRIMARY KEY (connection_id);

ALTER TABLE ONLY public.encryption_keys
    ADD CONSTRAINT encryption_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.held_grants
    ADD CONSTRAINT held_grants_pkey PRIMARY KEY (attempt_id);

ALTER TABLE ONLY public.request_limits
    ADD CONSTRAINT request_limits_pkey PRIMARY KEY (key);

ALTER TABLE ONLY public.tombstones
    ADD CONSTRAINT tombstones_pkey PRIMARY KEY (name);

CREATE INDEX api_keys_created_at_id_idx ON public.api_keys USING btree (created_at DESC, id);

CREATE INDEX authorization_requests_expires_at_idx ON public.authorization_requests USING btree (expires_at);

CREATE UNIQUE INDEX authorization_requests_state_hash_key ON public.authorization_requests USING btree (state_hash);

CREATE INDEX candidates_connection_id_created_at_idx ON public.candidates USING btree (connection_id, created_at DESC);

CREATE UNIQUE INDEX clients_name_key ON public.clients USING btree (name);

CREATE INDEX clients_provider_idx ON public.clients USING btree (provider);

CREATE INDEX connection_events_connection_id_id_idx ON public.connection_events USING btree (connection_id, id DESC);

CREATE INDEX connections_client_ref_refresh_fingerprint_idx ON public.connections USING btree (client_ref, refresh_fingerprint);

CREATE INDEX connections_created_at_id_idx ON public.connections USING btree (created_at DESC, id);

CREATE INDEX connections_due_idx ON public.connections USING btree (next_refresh_at) WHERE ((next_refresh_at IS NOT NULL) AND (status = ANY (ARRAY['connected'::text, 'pending'::text])));

CREATE INDEX connections_labels_idx ON public.connections USING gin (labels);

CREATE UNIQUE INDEX connections_name_key ON public.connections USING btree (name);

CREATE INDEX connections_parent_id_idx ON public.connections USING btree (parent_id);

CREATE INDEX consent_links_connection_id_idx ON public.consent_links USING btree (connection_id);

CREATE INDEX device_authorizations_next_poll_at_idx ON public.device_authorizations USING btree (next_poll_at);

CREATE INDEX held_grants_connection_id_created_at_idx ON public.held_grants USING btree (connection_id, created_at DESC);

CREATE INDEX tombstones_connection_id_idx ON public.tombstones USING btree (connection_id);

ALTER TABLE ONLY public.authorization_requests
    ADD CONSTRAINT authorization_requests_connection_id_fkey FOREIGN KEY (connection_id) REFERENCES public.connections(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE ONLY public.authorization_requests
    ADD CONSTRAINT authorization_requests_link_id_fkey FOREIGN KEY (link_id) REFERENCES public.consent_links(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE ONLY public.candidates
    ADD CONSTRAINT candidates_connection_id_fkey FOREIGN KEY (connection_id) REFERENCES public.connections(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE ONLY public.connection_events
    ADD CONSTRAINT connection_events_connection_id_fkey FOREIGN KEY (connection_id) REFERENCES public.connections(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE ONLY public.connections
    ADD CONSTRAINT connections_client_ref_fkey FOREIGN KEY (client_ref) REFERENCES public.clients(id) ON UPDATE CASCADE ON DELETE RESTRICT;

ALTER TABLE ONLY public.connections
    ADD CONSTRAINT connections_parent_id_fkey FOREIGN KEY (parent_id) REFERENCES public.connections(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE ONLY public.consent_links
    ADD CONSTRAINT consent_links_connection_id_fkey FOREIGN KEY (connection_id) REFERENCES public.connections(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE ONLY public.device_authorizations
    ADD CONSTRAINT device_authorizations_connection_id_fkey FOREIGN KEY (connection_id) REFERENCES public.connections(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE ONLY public.held_grants
    ADD CONSTRAINT held_grants_connection_id_fkey FOREIGN KEY (connection_id) REFERENCES public.connections(id) ON UPDATE CASCADE ON DELETE CASCADE;

