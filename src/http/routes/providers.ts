import { Type } from "typebox";
import { BrokerError } from "../../errors.ts";
import { didYouMean } from "../../nearest.ts";
import type { Catalog } from "../../providers/catalog.ts";
import { providerSchema } from "../schemas.ts";
import type { ApiScope } from "../scope.ts";
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
  const all = Type.Object({ items: Type.Array(providerSchema), next_cursor: Type.Null() });
  app.get(
    "/providers",
    { schema: { summary: "All definitions in force", tags, response: { 200: all } } },
    async () => ({
      items: (await catalog.list()).map((definition) => viewProvider(definition, settings)),
      next_cursor: null,
    }),
  );

  const params = Type.Object({ provider: Type.String() });
  const one = { summary: "A definition in force", tags, params, response: { 200: providerSchema } };
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
