// Everything that runs Universal Data Sync in one environment, in a resource group of its own. Databricks itself is taken as given,
// unless createDatabricksWorkspace says otherwise; its jobs come from the bundle in infra/databricks.

targetScope = 'subscription'

@description('Name of the environment; resources are named after it.')
@minLength(1)
@maxLength(40)
param environmentName string

@description('Azure region. Flex Consumption must be offered there: az functionapp list-flexconsumption-locations.')
@metadata({
  azd: {
    type: 'location'
  }
})
param location string

@description('dev, test or prod: which of the configuration\'s environments the app loads.')
@allowed(['dev', 'test', 'prod'])
param stage string

@description('Resource group, made when it is missing.')
param resourceGroupName string = 'rg-${environmentName}'

@description('Tags of every resource, beside those of this product.')
param extraTags object = {}

// Databricks

@description('Address of the Databricks workspace, https://adb-….azuredatabricks.net. Empty only with createDatabricksWorkspace.')
param databricksHost string

@description('Whether to make a Databricks workspace.')
param createDatabricksWorkspace bool = false

@description('Job id of each compute group, default=123,large=456. Empty until the bundle is deployed; the app says so until then.')
param databricksJobs string = ''

@description('Unity Catalog catalog of the audit tables and of the volume for run folders.')
param catalog string

@description('Schema of the audit tables and of the volume.')
param auditSchema string

@description('Volume for run folders.')
param volume string

@description('Object id, in this tenant, of the enterprise application AzureDatabricks; empty when no secret scope is backed by the vault.')
param databricksPrincipalId string = ''

// Secrets and sign-in

@description('Name that the configuration uses for the vault: secret_scope in connections.yml, and the bundle\'s secret_scope.')
param secretScope string

@description('Vaults of further scopes, as NAME=https://….vault.azure.net with commas between. Grant them by hand.')
param furtherVaults string = ''

@description('SCOPE/KEY of the text name:password that the Databricks webhook signs in with; empty without a webhook.')
param webhookSecret string = ''

@description('Object id of the group or person who keeps the secrets; empty for none.')
param secretsOfficerPrincipalId string = ''

@description('What that object id is.')
@allowed(['Group', 'User', 'ServicePrincipal'])
param secretsOfficerPrincipalType string = 'Group'

@description('Object id of the principal that deploys releases and keeps them in the storage account; empty for none.')
param deployerPrincipalId string = ''

@description('What that object id is.')
@allowed(['Group', 'User', 'ServicePrincipal'])
param deployerPrincipalType string = 'ServicePrincipal'

@description('Client id of the Entra application that HTTP callers sign in to, by infra/azure/register-application. Empty: function keys alone.')
param authClientId string = ''

// Size

@description('Service Bus tier. Private endpoints need Premium.')
@allowed(['Standard', 'Premium'])
param serviceBusTier string

@description('Memory of an instance in megabytes.')
@allowed([512, 2048, 4096])
param instanceMemoryInMegabytes int

@description('Most instances at once.')
param maximumInstanceCount int

@description('Instances that always run, as [{name, instanceCount}]; a name is http, or function: and the name of a function.')
param alwaysReady array

@description('Whether app and storage are spread over availability zones, which the region must have.')
param zoneRedundant bool

@description('Days that logs are kept.')
param logRetentionInDays int

@description('Gigabytes of logs a day after which ingestion stops; -1 for no limit.')
param logQuotaInGigabytes int

@description('Days in which deleted secrets and packages can be brought back. The vault keeps its first value for good.')
param softDeleteDays int

// Network

@description('Private endpoints, their DNS zones, a virtual network for the app, and no public access to the data services.')
param privateNetworking bool

@description('Whether the app\'s HTTP and its deployment can be reached from the internet all the same, by whoever signs in.')
param publicHttp bool

@description('Whether to make the private DNS zones here; false where a central team keeps them.')
param createPrivateDnsZones bool = true

@description('Address space of the virtual network.')
param addressPrefix string = '10.90.0.0/24'

@description('The part of it that the app sends from.')
param applicationPrefix string = '10.90.0.0/26'

@description('The part of it for private endpoints.')
param endpointPrefix string = '10.90.0.64/26'

// Telemetry and alarms

@description('Mail addresses that platform alarms go to.')
param alertEmails array

@description('Minutes that a watermark may lie behind before people are told: more than the longest pause between two runs of a pipeline.')
@minValue(5)
param lagMinutes int = 1560

@description('Seconds that a launch may wait before people are told.')
@minValue(60)
param launchSeconds int = 900

@description('Git revision of the package that is deployed, for the telemetry.')
param release string = ''

@description('Endpoint for OpenLineage events; empty for none.')
param lineageUrl string = ''

@description('SCOPE/KEY of the API key that the OpenLineage receiver asks for; empty where it asks for none.')
param lineageSecret string = ''

@description('App settings beside those below: name to value. No secrets.')
param extraAppSettings object = {}

var token = toLower(uniqueString(subscription().id, environmentName, location))
var tags = union(extraTags, {
  'azd-env-name': environmentName
  product: 'universal-data-sync'
  stage: stage
})
var publicDataAccess = privateNetworking ? 'Disabled' : 'Enabled'
var publicHttpAccess = (privateNetworking && !publicHttp) ? 'Disabled' : 'Enabled'
var privateServiceBus = privateNetworking && serviceBusTier == 'Premium'
var deploymentContainerName = 'function-package'

var zones = {
  blob: 'privatelink.blob.${environment().suffixes.storage}'
  table: 'privatelink.table.${environment().suffixes.storage}'
  vault: 'privatelink.vaultcore.azure.net'
  serviceBus: 'privatelink.servicebus.windows.net'
  sites: 'privatelink.azurewebsites.net'
}
var endpointSubnetId = privateNetworking ? network!.outputs.endpointSubnetId : ''
var applicationSubnetId = privateNetworking ? network!.outputs.applicationSubnetId : ''
var zoneNames = [zones.blob, zones.table, zones.vault, zones.serviceBus, zones.sites]

resource group 'Microsoft.Resources/resourceGroups@2024-03-01' = {
  name: resourceGroupName
  location: location
  tags: tags
}

module identity 'modules/identity.bicep' = {
  name: 'identity'
  scope: group
  params: {
    name: 'id-sync-${token}'
    location: location
    tags: tags
  }
}

module monitoring 'modules/monitoring.bicep' = {
  name: 'monitoring'
  scope: group
  params: {
    workspaceName: 'log-sync-${token}'
    componentName: 'appi-sync-${token}'
    location: location
    tags: tags
    retentionInDays: logRetentionInDays
    dailyQuotaInGigabytes: logQuotaInGigabytes
  }
}

module network 'modules/network.bicep' = if (privateNetworking) {
  name: 'network'
  scope: group
  params: {
    name: 'vnet-sync-${token}'
    location: location
    tags: tags
    addressPrefix: addressPrefix
    applicationPrefix: applicationPrefix
    endpointPrefix: endpointPrefix
    zoneNames: createPrivateDnsZones ? zoneNames : []
    workspaceId: monitoring.outputs.workspaceId
  }
}

module storage 'modules/storage.bicep' = {
  name: 'storage'
  scope: group
  params: {
    name: 'stsync${token}'
    location: location
    tags: tags
    skuName: zoneRedundant ? 'Standard_ZRS' : 'Standard_LRS'
    publicNetworkAccess: publicDataAccess
    deploymentContainerName: deploymentContainerName
    softDeleteDays: softDeleteDays
    workspaceId: monitoring.outputs.workspaceId
  }
}

module serviceBus 'modules/service-bus.bicep' = {
  name: 'service-bus'
  scope: group
  params: {
    name: 'sb-sync-${token}'
    location: location
    tags: tags
    tier: serviceBusTier
    publicNetworkAccess: privateServiceBus ? 'Disabled' : 'Enabled'
    workspaceId: monitoring.outputs.workspaceId
  }
}

module keyVault 'modules/key-vault.bicep' = {
  name: 'key-vault'
  scope: group
  params: {
    name: 'kv-sync-${token}'
    location: location
    tags: tags
    publicNetworkAccess: publicDataAccess
    softDeleteDays: softDeleteDays
    workspaceId: monitoring.outputs.workspaceId
  }
}

module roleAssignments 'modules/role-assignments.bicep' = {
  name: 'role-assignments'
  scope: group
  params: {
    identityPrincipalId: identity.outputs.principalId
    storageAccountName: storage.outputs.name
    serviceBusName: serviceBus.outputs.name
    keyVaultName: keyVault.outputs.name
    componentName: monitoring.outputs.componentName
    databricksPrincipalId: databricksPrincipalId
    secretsOfficerPrincipalId: secretsOfficerPrincipalId
    secretsOfficerPrincipalType: secretsOfficerPrincipalType
    deployerPrincipalId: deployerPrincipalId
    deployerPrincipalType: deployerPrincipalType
  }
}

module blobEndpoint 'modules/private-endpoint.bicep' = if (privateNetworking) {
  name: 'blob-endpoint'
  scope: group
  params: {
    name: 'pe-blob-${token}'
    location: location
    tags: tags
    subnetId: endpointSubnetId
    targetId: storage.outputs.id
    groupId: 'blob'
    zoneName: createPrivateDnsZones ? zones.blob : ''
  }
}

module tableEndpoint 'modules/private-endpoint.bicep' = if (privateNetworking) {
  name: 'table-endpoint'
  scope: group
  params: {
    name: 'pe-table-${token}'
    location: location
    tags: tags
    subnetId: endpointSubnetId
    targetId: storage.outputs.id
    groupId: 'table'
    zoneName: createPrivateDnsZones ? zones.table : ''
  }
}

module vaultEndpoint 'modules/private-endpoint.bicep' = if (privateNetworking) {
  name: 'vault-endpoint'
  scope: group
  params: {
    name: 'pe-vault-${token}'
    location: location
    tags: tags
    subnetId: endpointSubnetId
    targetId: keyVault.outputs.id
    groupId: 'vault'
    zoneName: createPrivateDnsZones ? zones.vault : ''
  }
}

module serviceBusEndpoint 'modules/private-endpoint.bicep' = if (privateServiceBus) {
  name: 'service-bus-endpoint'
  scope: group
  params: {
    name: 'pe-bus-${token}'
    location: location
    tags: tags
    subnetId: endpointSubnetId
    targetId: serviceBus.outputs.id
    groupId: 'namespace'
    zoneName: createPrivateDnsZones ? zones.serviceBus : ''
  }
}

module appEndpoint 'modules/private-endpoint.bicep' = if (privateNetworking) {
  name: 'app-endpoint'
  scope: group
  params: {
    name: 'pe-app-${token}'
    location: location
    tags: tags
    subnetId: endpointSubnetId
    targetId: functionApp.outputs.id
    groupId: 'sites'
    zoneName: createPrivateDnsZones ? zones.sites : ''
  }
}

module databricks 'modules/databricks-workspace.bicep' = if (createDatabricksWorkspace) {
  name: 'databricks'
  scope: group
  params: {
    name: 'dbw-sync-${token}'
    location: location
    tags: tags
    managedResourceGroupName: '${resourceGroupName}-databricks'
    workspaceId: monitoring.outputs.workspaceId
  }
}

module functionApp 'modules/function-app.bicep' = {
  name: 'function-app'
  scope: group
  // The host reads its storage while it starts, and private endpoints must answer by then.
  dependsOn: [
    roleAssignments
    blobEndpoint
    tableEndpoint
    vaultEndpoint
    serviceBusEndpoint
  ]
  params: {
    name: 'func-sync-${token}'
    planName: 'plan-sync-${token}'
    location: location
    tags: tags
    identityId: identity.outputs.id
    identityClientId: identity.outputs.clientId
    storageAccountName: storage.outputs.name
    deploymentContainerUrl: '${storage.outputs.blobUrl}${deploymentContainerName}'
    componentName: monitoring.outputs.componentName
    workspaceId: monitoring.outputs.workspaceId
    subnetId: applicationSubnetId
    publicNetworkAccess: publicHttpAccess
    zoneRedundant: zoneRedundant
    instanceMemoryInMegabytes: instanceMemoryInMegabytes
    maximumInstanceCount: maximumInstanceCount
    alwaysReady: alwaysReady
    authClientId: authClientId
    settings: union(extraAppSettings, {
      ServiceBusConnection__fullyQualifiedNamespace: serviceBus.outputs.hostName
      UDS_TABLES: storage.outputs.tablesUrl
      UDS_DATABRICKS_HOST: createDatabricksWorkspace ? databricks!.outputs.host : databricksHost
      UDS_DATABRICKS_JOBS: databricksJobs
      UDS_RUN_FOLDER: '/Volumes/${catalog}/${auditSchema}/${volume}'
      UDS_AUDIT_SCHEMA: '${catalog}.${auditSchema}'
      UDS_KEY_VAULTS: empty(furtherVaults) ? '${secretScope}=${keyVault.outputs.url}' : '${secretScope}=${keyVault.outputs.url},${furtherVaults}'
      UDS_WEBHOOK_SECRET: webhookSecret
      UDS_CONFIG: 'config/compiled.json'
      UDS_ENVIRONMENT: stage
      UDS_RELEASE: release
      UDS_LINEAGE_URL: lineageUrl
      UDS_LINEAGE_SECRET: lineageSecret
      PYTHON_ENABLE_OPENTELEMETRY: 'true'
      OTEL_SERVICE_NAME: 'universal-data-sync'
      OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=${stage}'
    })
  }
}

module httpSignIn 'modules/http-sign-in.bicep' = if (!empty(authClientId)) {
  name: 'http-sign-in'
  scope: group
  params: {
    functionAppName: functionApp.outputs.name
    authClientId: authClientId
  }
}

module alerts 'modules/alerts.bicep' = {
  name: 'alerts'
  scope: group
  params: {
    namePrefix: 'sync-${environmentName}'
    location: location
    tags: tags
    emails: alertEmails
    workspaceId: monitoring.outputs.workspaceId
    serviceBusId: serviceBus.outputs.id
    storageAccountId: storage.outputs.id
  }
}

module alertQueries 'modules/alert-queries.bicep' = {
  name: 'alert-queries'
  scope: group
  params: {
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
    actionGroupId: alerts.outputs.actionGroupId
    lagMinutes: lagMinutes
    launchSeconds: launchSeconds
  }
}

module workbook 'modules/workbook.bicep' = {
  name: 'workbook'
  scope: group
  params: {
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
    displayName: 'Universal Data Sync (${stage})'
  }
}

// azd puts the outputs into its environment, where hooks and tools read them.
output AZURE_RESOURCE_GROUP string = group.name
output AZURE_FUNCTION_APP_NAME string = functionApp.outputs.name
output AZURE_FUNCTION_APP_URL string = functionApp.outputs.url
output AZURE_IDENTITY_CLIENT_ID string = identity.outputs.clientId
output AZURE_IDENTITY_PRINCIPAL_ID string = identity.outputs.principalId
output AZURE_KEY_VAULT_NAME string = keyVault.outputs.name
output AZURE_KEY_VAULT_ID string = keyVault.outputs.id
output AZURE_KEY_VAULT_URL string = keyVault.outputs.url
output AZURE_STORAGE_ACCOUNT_NAME string = storage.outputs.name
output AZURE_TABLES_URL string = storage.outputs.tablesUrl
output AZURE_SERVICE_BUS_NAMESPACE string = serviceBus.outputs.hostName
output AZURE_LOG_ANALYTICS_WORKSPACE_NAME string = monitoring.outputs.workspaceName
output AZURE_OUTBOUND_ADDRESS string = privateNetworking ? network!.outputs.outboundAddress : ''
output DATABRICKS_HOST string = createDatabricksWorkspace ? databricks!.outputs.host : databricksHost
