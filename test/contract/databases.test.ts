import { clients } from "./store/clients.ts";
import { connections } from "./store/connections.ts";
import { faults } from "./store/faults.ts";
import { grants } from "./store/grants.ts";
import { consent, keys } from "./store/keys-and-links.ts";
import { permits } from "./store/permits.ts";
import { answers } from "./refresh/answers.ts";
import { secondWay } from "./refresh/second-way.ts";
import { sending } from "./refresh/sending.ts";
import { unknownOutcome } from "./refresh/unknown-outcome.ts";
import { describeOnBothDatabases } from "./store/both-databases.ts";
import { takeover } from "./store/takeover.ts";

describeOnBothDatabases([
  permits,
  grants,
  takeover,
  connections,
  clients,
  keys,
  consent,
  faults,
  sending,
  unknownOutcome,
  secondWay,
  answers,
]);
