import { Type } from "typebox";
import { BrokerError } from "../../errors.ts";
import type { Catalog } from "../../providers/load/catalog.ts";
import { didYouMean } from "../../text.ts";
import { providerListSchema, providerSchema } from "../admin-answers.ts";
import { type ApiScope, textField } from "../schemas.ts";
import { viewProvider } from "../views.ts";

export type ProviderRoutesOptions = {
  catalog: Catalog;
  publicUrl: string;
  /** For every provider whose definition names none of its own. */
  providerNetworks: readonly string[];
};

const tags = ["providers"];

/** `/providers`: the definitions in force. */
export async function providerRoutes(app: ApiScope, { catalog, ...settings }: ProviderRoutesOptions): Promise<void> {
  const all = {
    operationId: "listProviders",
    summary: "All definitions in force",
    description: "The built-in ones and those of PROVIDERS_DIR, each with the redirect_uri to register.",
    tags,
    response: { 200: providerListSchema },
  };
  app.get("/providers", { schema: all }, async () => ({
    items: (await catalog.list()).map((definition) => viewProvider(definition, settings)),
    next_cursor: null,
  }));

  const one = {
    operationId: "getProvider",
    summary: "A definition in force",
    description: "With the inputs that its clients and connections need.",
    tags,
    problems: ["not_found"] as const,
    params: Type.Object({ provider: textField("Id of the provider's definition", "sandbox") }),
    response: { 200: providerSchema },
  };
  app.get("/providers/:provider", { schema: one }, async (request) => {
    const definition = catalog.get(request.params.provider);
    if (definition === undefined) {
      const { provider } = request.params;
      const known = (await catalog.list()).map(({ id }) => id);
      throw new BrokerError("not_found", `There is no provider "${provider}".${didYouMean(provider, known)}`);
    }
    return viewProvider(definition, settings);
  });
}
