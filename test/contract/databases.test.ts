import { clients } from "./store/clients.ts";
import { connections } from "./store/connections.ts";
import { faults } from "./store/faults.ts";
import { grants } from "./store/grants.ts";
import { consent, keys } from "./store/keys-and-links.ts";
import { permits } from "./store/permits.ts";
import { refresh } from "./refresh/refresh.ts";
import { describeOnBothDatabases } from "./store/stage.ts";
import { takeover } from "./store/takeover.ts";

describeOnBothDatabases([permits, grants, takeover, connections, clients, keys, consent, faults, refresh]);
