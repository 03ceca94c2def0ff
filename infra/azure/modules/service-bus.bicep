// The queues between the flows. Each step of a flow is idempotent, so a message that comes twice or late does no harm.

@description('Name of the namespace, unique in the world.')
@minLength(6)
@maxLength(50)
param name string

@description('Azure region.')
param location string

@description('Tags of every resource.')
param tags object

@description('Standard, or Premium, which alone has private endpoints and network rules, at about 70 times the price. Basic has no duplicate detection.')
@allowed(['Standard', 'Premium'])
param tier string

@description('Disabled when the namespace is reached by private endpoints alone, which takes tier Premium.')
@allowed(['Enabled', 'Disabled'])
param publicNetworkAccess string

@description('Resource id of the Log Analytics workspace.')
param workspaceId string

var queues = [
  {
    name: 'sync-requests'
    // Requests wait while a pipeline is paused or the app is down.
    timeToLive: 'P14D'
  }
  {
    name: 'sync-runs'
    timeToLive: 'P14D'
  }
  {
    name: 'sync-completions'
    timeToLive: 'P14D'
  }
  {
    // An alert is tried for three days.
    name: 'sync-alerts'
    timeToLive: 'P14D'
  }
  {
    // Nothing reads it but people, who may be on holiday.
    name: 'sync-rejected'
    timeToLive: 'P90D'
  }
]

resource namespace 'Microsoft.ServiceBus/namespaces@2024-01-01' = {
  name: name
  location: location
  tags: tags
  sku: {
    name: tier
    tier: tier
    capacity: tier == 'Premium' ? 1 : null
  }
  properties: {
    disableLocalAuth: true
    minimumTlsVersion: '1.2'
    publicNetworkAccess: publicNetworkAccess
  }
}

resource queue 'Microsoft.ServiceBus/namespaces/queues@2024-01-01' = [for entry in queues: {
  parent: namespace
  name: entry.name
  properties: {
    // The least that takes in every retry of a sender. A longer window would swallow a rejected request that was corrected and
    // sent again under its id; what the reconciler sends again has a key of its own for each minute, so no window swallows it.
    requiresDuplicateDetection: true
    duplicateDetectionHistoryTimeWindow: 'PT10M'
    requiresSession: false
    // The longest there is. The host renews it for five more minutes; no handler waits for a job.
    lockDuration: 'PT5M'
    maxDeliveryCount: 10
    defaultMessageTimeToLive: entry.timeToLive
    deadLetteringOnMessageExpiration: true
    maxSizeInMegabytes: 1024
  }
}]

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'to-workspace'
  scope: namespace
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        // Changes of queues and rules. The runtime logs name every message and are left out for their price.
        category: 'OperationalLogs'
        enabled: true
      }
    ]
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}

output id string = namespace.id
output name string = namespace.name
output hostName string = replace(replace(namespace.properties.serviceBusEndpoint, 'https://', ''), ':443/', '')
