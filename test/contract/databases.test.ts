import { furtherTokens } from "./store/further-tokens.ts";
import { clients } from "./store/clients.ts";
import { connections } from "./store/connections.ts";
import { direct } from "./store/direct.ts";
import { faults } from "./store/faults.ts";
import { tokenSets } from "./store/token-sets.ts";
import { unconfirmedGrants } from "./store/held-grants.ts";
import { consent, keys } from "./store/keys-and-links.ts";
import { workloads } from "./store/workloads.ts";
import { permits } from "./store/permits.ts";
import { answers } from "./refresh/answers.ts";
import { changedRows } from "./refresh/changed-rows.ts";
import { ends } from "./refresh/grant-ends.ts";
import { further } from "./refresh/further.ts";
import { lateAnswers } from "./refresh/late-answers.ts";
import { secondWay } from "./refresh/second-way.ts";
import { sending } from "./refresh/sending.ts";
import { unknownOutcome } from "./refresh/unknown-outcome.ts";
import { unreadable } from "./refresh/unreadable.ts";
import { describeOnBothDatabases, describeOnPostgres } from "./store/both-databases.ts";
import { dueness } from "./store/due-rows.ts";
import { lateSets } from "./store/late-sets.ts";
import { storedRows } from "./store/stored-rows.ts";
import { takeover } from "./store/takeover.ts";
import { replicas } from "./store/replicas.ts";
import { tombstones } from "./store/tombstones.ts";

describeOnBothDatabases([
  permits,
  tokenSets,
  takeover,
  storedRows,
  lateSets,
  furtherTokens,
  unconfirmedGrants,
  dueness,
  tombstones,
  replicas,
  connections,
  clients,
  keys,
  workloads,
  consent,
  direct,
  faults,
]);
describeOnPostgres([sending, unknownOutcome, secondWay, answers, lateAnswers, further, unreadable, changedRows, ends]);
