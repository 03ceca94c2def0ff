// Who may do what, on one page. What the deploying principal needs to make these resources is in docs/azure.md.

@description('Object id of the control plane\'s identity.')
param identityPrincipalId string

@description('Name of the storage account.')
param storageAccountName string

@description('Name of the Service Bus namespace.')
param serviceBusName string

@description('Name of the Key Vault.')
param keyVaultName string

@description('Name of the Application Insights component.')
param componentName string

@description('Object id, in this tenant, of the enterprise application AzureDatabricks, which reads a secret scope backed by the vault; empty for none.')
param databricksPrincipalId string

@description('Object id of the group or person who keeps the secrets; empty for none.')
param secretsOfficerPrincipalId string

@description('What that object id is.')
@allowed(['Group', 'User', 'ServicePrincipal'])
param secretsOfficerPrincipalType string

@description('Object id of the principal that deploys releases; empty for none.')
param deployerPrincipalId string

@description('What that object id is.')
@allowed(['Group', 'User', 'ServicePrincipal'])
param deployerPrincipalType string

var storageBlobDataOwner = 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
var storageBlobDataContributor = 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
var storageTableDataContributor = '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3'
var serviceBusDataOwner = '090c5cfd-751d-490a-894a-3ce6f1109419'
var serviceBusDataSender = '69a216fc-b8fb-44d8-bc22-1f3c2cd27a39'
var serviceBusDataReceiver = '4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0'
var keyVaultSecretsUser = '4633458b-17de-408a-b874-0445c86b69e6'
var keyVaultSecretsOfficer = 'b86a8fe4-44ce-4948-aee5-eccb2c155cd7'
var monitoringMetricsPublisher = '3913510d-42f4-4e42-8a64-420c390055eb'

var triggerQueues = ['sync-requests', 'sync-runs', 'sync-completions', 'sync-alerts']

resource account 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: storageAccountName
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2025-01-01' existing = {
  parent: account
  name: 'default'
}

resource releases 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' existing = {
  parent: blobs
  name: 'releases'
}

resource namespace 'Microsoft.ServiceBus/namespaces@2024-01-01' existing = {
  name: serviceBusName
}

resource queues 'Microsoft.ServiceBus/namespaces/queues@2024-01-01' existing = [for queueName in triggerQueues: {
  parent: namespace
  name: queueName
}]

resource rejectedQueue 'Microsoft.ServiceBus/namespaces/queues@2024-01-01' existing = {
  parent: namespace
  name: 'sync-rejected'
}

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' existing = {
  name: keyVaultName
}

resource component 'Microsoft.Insights/components@2020-02-02' existing = {
  name: componentName
}

// The host makes its containers itself, so the scope is the account, which holds nothing else. Queue rights are left out: only blob
// triggers would need them.
resource hostBlobs 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, identityPrincipalId, storageBlobDataOwner)
  scope: account
  properties: {
    description: 'The Functions host keeps its timer locks and keys in blobs and takes the package from there; it needs ownership for its leases.'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataOwner)
    principalId: identityPrincipalId
    principalType: 'ServicePrincipal'
  }
}

// The host writes diagnostic events into tables that it makes, one a month, so the scope is the account.
resource stateTable 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, identityPrincipalId, storageTableDataContributor)
  scope: account
  properties: {
    description: 'The control plane keeps its records in the table udsstate; the host writes its diagnostic events beside it.'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageTableDataContributor)
    principalId: identityPrincipalId
    principalType: 'ServicePrincipal'
  }
}

// By queue and not for the namespace, whose network rules and other queues stay out of reach.
resource triggers 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for (queueName, index) in triggerQueues: {
  name: guid(queues[index].id, identityPrincipalId, serviceBusDataOwner)
  scope: queues[index]
  properties: {
    description: 'The control plane sends to and receives from this queue, and the scaler reads its length, for which Receiver is not enough.'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', serviceBusDataOwner)
    principalId: identityPrincipalId
    principalType: 'ServicePrincipal'
  }
}]

resource reject 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(rejectedQueue.id, identityPrincipalId, serviceBusDataSender)
  scope: rejectedQueue
  properties: {
    description: 'The control plane puts messages aside here that it cannot understand.'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', serviceBusDataSender)
    principalId: identityPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource lookAtRejected 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(rejectedQueue.id, identityPrincipalId, serviceBusDataReceiver)
  scope: rejectedQueue
  properties: {
    description: 'The watch looks at what was put aside, to raise and to close its alert.'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', serviceBusDataReceiver)
    principalId: identityPrincipalId
    principalType: 'ServicePrincipal'
  }
}

// The vault is this product's own. Where teams share one, scope it to each secret instead.
resource readSecrets 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, identityPrincipalId, keyVaultSecretsUser)
  scope: vault
  properties: {
    description: 'The control plane reads the secrets of alert receivers and of the Databricks webhook; it can neither list nor change them.'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultSecretsUser)
    principalId: identityPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource sendTelemetry 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(component.id, identityPrincipalId, monitoringMetricsPublisher)
  scope: component
  properties: {
    description: 'The control plane and the host send their telemetry as this identity; the component takes no keys.'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', monitoringMetricsPublisher)
    principalId: identityPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource databricksReadsSecrets 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(databricksPrincipalId)) {
  name: guid(vault.id, databricksPrincipalId, keyVaultSecretsUser)
  scope: vault
  properties: {
    description: 'Databricks reads the sources\' passwords through a secret scope backed by this vault, as its own enterprise application.'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultSecretsUser)
    principalId: databricksPrincipalId
    principalType: 'ServicePrincipal'
  }
}

resource keepSecrets 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(secretsOfficerPrincipalId)) {
  name: guid(vault.id, secretsOfficerPrincipalId, keyVaultSecretsOfficer)
  scope: vault
  properties: {
    description: 'People put secrets in and renew them; they cannot purge the vault or hand out rights.'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultSecretsOfficer)
    principalId: secretsOfficerPrincipalId
    principalType: secretsOfficerPrincipalType
  }
}

resource keepReleases 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(deployerPrincipalId)) {
  name: guid(releases.id, deployerPrincipalId, storageBlobDataContributor)
  scope: releases
  properties: {
    description: 'Whoever deploys keeps the releases in this container, for a rollback; the state and the host\'s blobs stay out of reach.'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataContributor)
    principalId: deployerPrincipalId
    principalType: deployerPrincipalType
  }
}
