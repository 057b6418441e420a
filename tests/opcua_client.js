// node-opcua's client: reads, listens and calls, then says in one line of JSON what it found.
const opcua = require("node-opcua-client");
const { OPCUACertificateManager } = require("node-opcua-certificate-manager");
const [url, certificateFile, privateKeyFile, userName, password] = process.argv.slice(2);
const VISION = "http://opcfoundation.org/UA/MachineVision";

async function main() {
  const client = opcua.OPCUAClient.create({
    applicationUri: "urn:scada",
    securityMode: opcua.MessageSecurityMode.SignAndEncrypt,
    securityPolicy: opcua.SecurityPolicy.Aes256_Sha256_RsaPss,
    certificateFile, privateKeyFile,
    endpointMustExist: false,
    connectionStrategy: { maxRetry: 3 },
    clientCertificateManager: new OPCUACertificateManager({
      rootFolder: require("fs").mkdtempSync(require("os").tmpdir() + "/opcua-"), automaticallyAcceptUnknownCertificate: true,
    }),
  });
  await client.connect(url);
  const session = await client.createSession({ type: opcua.UserTokenType.UserName, userName, password });
  const uris = await session.readNamespaceArray();
  const own = uris.indexOf("urn:inspectd:opcua"), vision = uris.indexOf(VISION);
  const id = (path) => `ns=${own};s=line3${path ? "." + path : ""}`;
  const read = (path) => session.read({ nodeId: id(path), attributeId: opcua.AttributeIds.Value });
  const said = { types: {}, events: [], missing: [] };

  const state = await read("VisionStateMachine.CurrentState");
  said.state = [state.value.value.text, state.statusCode.name];
  const paths = ["", "ResultManagement", "RecipeManagement", "ConfigurationManagement", "VisionStateMachine",
    "VisionStateMachine.AutomaticModeStateMachine", "ResultManagement.Results.LastResult", "RecipeManagement.Recipes.lid"];
  for (const path of paths) {
    const [type] = (await session.browse({ nodeId: id(path), referenceTypeId: "HasTypeDefinition", resultMask: 63 })).references;
    said.types[path] = type.browseName.name;
    // Everything that the type calls mandatory has to be there, under the same browse name.
    const names = async (nodeId) => (await session.browse({ nodeId, referenceTypeId: "HasChild", includeSubtypes: true,
      browseDirection: opcua.BrowseDirection.Forward, resultMask: 63 })).references;
    const there = new Set((await names(id(path))).map((one) => one.browseName.toString()));
    for (const child of await names(type.nodeId)) {
      const rules = (await session.browse({ nodeId: child.nodeId, referenceTypeId: "HasModellingRule", resultMask: 63 })).references;
      const mandatory = rules.some((rule) => rule.nodeId.toString() === "ns=0;i=78");
      if (mandatory && !there.has(child.browseName.toString())) said.missing.push(`${path}: ${child.browseName}`);
    }
  }

  const subscription = await session.createSubscription2({
    requestedPublishingInterval: 100, requestedMaxKeepAliveCount: 10, requestedLifetimeCount: 1000,
    publishingEnabled: true, maxNotificationsPerPublish: 100,
  });
  const fields = ["Message", `${vision}:PartId`, `${vision}:ResultContent`, `${vision}:InternalRecipeId`, `${own}:Decision`,
    `${vision}:ResultId`];
  const filter = opcua.constructEventFilter(fields, opcua.ofType(`ns=${vision};i=1024`));
  const item = opcua.ClientMonitoredItem.create(subscription,
    { nodeId: "i=2253", attributeId: opcua.AttributeIds.EventNotifier },
    { samplingInterval: 0, queueSize: 100, discardOldest: true, filter });
  const heard = new Promise((resolve) => item.on("changed", resolve));
  await new Promise((resolve) => item.on("initialized", resolve));
  console.log("listening");
  const [, partId, content, recipe, decision, resultId] = await heard;
  said.events.push({ partId: partId.value.id, decision: decision.value, content: content.value[0], recipe: recipe.value.schema.name });

  const call = async (object, method, inputArguments) => session.call({ objectId: id(object), methodId: id(`${object}.${method}`), inputArguments });
  const structure = async (number, text) => ({ dataType: "ExtensionObject",
    value: await session.constructExtensionObject(opcua.coerceNodeId(`ns=${vision};i=${number}`), { id: text }) });
  const byId = await call("ResultManagement", "GetResultById", [await structure(3021, resultId.value.id), { dataType: "Int32", value: 0 }]);
  const found = byId.outputArguments[1].value.resultContent[0].value;
  said.byId = { error: byId.outputArguments[2].value, seq: found.seq[1], score: found.score };
  const prepare = async (name) => call("RecipeManagement", "PrepareRecipe", [await structure(3002, name), await structure(3013, "")]);
  const prepared = await prepare("lid");
  said.prepare = { status: prepared.statusCode.name, error: prepared.outputArguments[2].value, id: prepared.outputArguments[0].value.id };
  said.unknown = (await prepare("nothing")).outputArguments[2].value;
  said.halt = (await call("VisionStateMachine", "Halt", [{ dataType: "Int32", value: 1 }, { dataType: "String", value: "" }])).statusCode.name;
  await session.close();
  await client.disconnect();
  console.log(JSON.stringify(said));
}

main().catch((error) => { console.error(error); process.exit(1); });
